"""Gradient of conv_transpose2d, cpu backend: the convolution that it is the transpose of, and that one's gradient."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu import conv2d, native, reach
from sparseblock.backends.cpu.conv2d_backward import weight_grad


def conv_transpose2d_backward(call, grad, packed, needs):
    c, _, *kernel = call.weight.shape
    conv = native.Conv2d(
        grad.shape[1], c, call.groups, *kernel, *call.stride, *call.padding, *call.dilation, transposed=0
    )
    blocks = reach.conv_transpose2d(call, call.shapes["x"], grad.shape)
    place = (blocks.index, blocks.count, blocks.block)
    grads = {}
    if "x" in needs:
        grads["x"] = torch.zeros(call.shapes["x"]).contiguous(memory_format=torch.channels_last)
        conv2d.run(conv, grad, call.weight, None, *place, grads["x"], None, {})
    if "weight" in needs:
        grads["weight"] = weight_grad(conv, grad, call.x, *place, call.weight)
    return grads
