"""conv_transpose2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import activate, combined, in_order, store, widened


def conv_transpose2d(
    x, weight, bias, index, count, block, out, stride, padding, output_padding, dilation, groups,
    activation, slope, bounds, residual, combine,
) -> None:  # fmt: skip
    x, weight, bias, residual = widened(x, weight, bias, residual)
    dense = F.conv_transpose2d(*in_order(x, weight), bias, stride, padding, output_padding, groups, dilation)
    store(activate(combined(dense, residual, combine), activation, slope, bounds), index, count, block, out)
