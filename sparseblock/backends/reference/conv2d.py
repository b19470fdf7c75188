"""conv2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import activate, combined, in_order, store, widened


def conv2d(
    x, weight, bias, index, count, block, out, stride, padding, dilation, groups,
    activation, slope, bounds, residual, combine, padding_mode, algorithm,
) -> None:  # fmt: skip
    x, weight, bias, residual = widened(x, weight, bias, residual)
    sides = []  # left, right, top, bottom: the size of `out` tells what is read below and on the right
    for axis in (1, 0):
        reach = (out.shape[2 + axis] - 1) * stride[axis] + dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        sides += [padding[axis], max(reach - padding[axis] - x.shape[2 + axis], 0)]
    padded = F.pad(x, sides, mode="constant" if padding_mode == "zeros" else padding_mode)
    dense = F.conv2d(*in_order(padded, weight), bias, stride, 0, dilation, groups)
    store(activate(combined(dense, residual, combine), activation, slope, bounds), index, count, block, out)
