"""Gradient of conv2d, cpu backend: csrc/cpu/conv2d.cpp, transposed, and csrc/cpu/conv2d_weight_grad.cpp."""

from __future__ import annotations

from ctypes import byref
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from sparseblock.backends.cpu import conv2d, native, reach
from sparseblock.backends.cpu.pad_backward import folded
from sparseblock.grid import trailing_padding


def conv2d_backward(call, grad, packed, needs):
    if call.padding_mode != "zeros":
        return _of_padded(call, grad, packed, needs)
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


def _of_padded(call, grad, packed, needs):
    """Those of the convolution of the map as it is padded, and of that padding."""
    around = []
    for axis in (1, 0):
        window = (call.weight.shape[2 + axis], call.stride[axis], call.padding[axis], call.dilation[axis])
        around += [call.padding[axis], trailing_padding(call.x.shape[2 + axis], grad.shape[2 + axis], *window)]
    x = F.pad(call.x, around, call.padding_mode).contiguous(memory_format=torch.channels_last)
    inner = {"x": x, "padding": [0, 0], "padding_mode": "zeros", "shapes": {**call.shapes, "x": list(x.shape)}}
    grads = conv2d_backward(SimpleNamespace(**{**vars(call), **inner}), grad, packed, needs)
    if "x" in needs:
        grads["x"] = folded(grads["x"], call.shapes["x"], around, call.padding_mode)
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
