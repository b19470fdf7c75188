"""Gradient of conv_transpose2d: the convolution that it is the transpose of, and that one's gradient."""

from __future__ import annotations

from sparseblock.backends.gradients import compute, reach, zeros
from sparseblock.backends.gradients.conv2d import PLAIN, struct


def conv_transpose2d_backward(call, grad, packed, needs):
    c, size = call.weight.shape[0], call.shapes["x"]
    transposed = struct(call, c, grad.shape[1], transposed=True)
    blocks = reach.conv2d(transposed, call.index, call.count, call.block, size, grad.shape)
    place = (blocks.index, blocks.count, blocks.block)
    grads = {}
    if "x" in needs:
        grads["x"] = zeros(size, grad)
        sides = (call.stride, call.padding, call.dilation, call.groups)
        compute("conv2d", grad, call.weight, None, *place, grads["x"], *sides, *PLAIN, "zeros", "direct")
    if "weight" in needs:
        conv = struct(call, grad.shape[1], c)
        grads["weight"] = compute("conv2d_weight_grad", grad, call.x, *place, conv, call.weight.shape)
    return grads
