"""Gradient of conv2d: the transposed convolution over what active blocks reach, and a sum over their pixels."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients import compute, reach, zeros
from sparseblock.backends.gradients.pad import folded
from sparseblock.grid import trailing_padding

PLAIN = (None, None, None, None, "add")  # activation, slope, bounds, residual, combine


def conv2d_backward(call, grad, packed, needs):
    if call.padding_mode != "zeros":
        return _of_padded(call, grad, packed, needs)
    conv, size = struct(call, call.shapes["x"][1], grad.shape[1]), call.shapes["x"]
    listed, grads = (call.index, call.count, call.block), {}
    if "x" in needs:
        grads["x"] = zeros(size, grad)
        blocks = reach.conv2d(conv, *listed, size, grad.shape)
        place = (blocks.index, blocks.count, blocks.block)
        sides = (call.stride, call.padding, (0, 0), call.dilation, call.groups)
        compute("conv_transpose2d", grad, call.weight, None, *place, grads["x"], *sides, *PLAIN)
    if "weight" in needs:
        grads["weight"] = compute("conv2d_weight_grad", call.x, grad, *listed, conv, call.weight.shape)
    return grads


def struct(call, in_channels: int, out_channels: int, transposed: bool = False) -> native.Conv2d:
    """The convolution of a call."""
    sides = (*call.weight.shape[2:], *call.stride, *call.padding, *call.dilation)
    return native.Conv2d(in_channels, out_channels, call.groups, *sides, transposed)


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
