"""Gradient of conv2d, cpu backend: csrc/cpu/conv2d.cpp, transposed, and csrc/cpu/conv2d_weight_grad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import conv2d, native, reach


def conv2d_backward(call, grad, packed, needs):
    k, per_group, *kernel = call.weight.shape
    window = (call.groups, *kernel, *call.stride, *call.padding, *call.dilation)
    grads = {}
    if "x" in needs:
        size = call.shapes["x"]
        grads["x"] = torch.zeros(size).contiguous(memory_format=torch.channels_last)
        blocks = reach.conv2d(call, size, grad.shape)
        transposed = native.Conv2d(k, size[1], *window, transposed=1)
        place = (blocks.index, blocks.count, blocks.block)
        conv2d.run(transposed, grad, call.weight, None, *place, grads["x"], None, {})
    if "weight" in needs:
        conv = native.Conv2d(per_group * call.groups, k, *window)
        grads["weight"] = weight_grad(conv, call.x, grad, call.index, call.count, call.block, call.weight)
    return grads


def weight_grad(conv, x, grad, index, count, block, weight) -> torch.Tensor:
    """The gradient with respect to `weight` of `conv` from x to a map with gradient `grad`, of its active blocks."""
    result = torch.empty(weight.shape, memory_format=torch.channels_last)
    native.lib().sb_conv2d_weight_grad_run(
        byref(conv),
        byref(native.plane_of(x)),
        byref(native.plane_of(grad)),
        byref(native.blocks_of(index, count, block)),
        result.data_ptr(),
        None,
        torch.get_num_threads(),
    )
    return result
