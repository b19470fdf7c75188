"""conv2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import activate, store, widened


def conv2d(
    x, weight, bias, index, count, block, out, stride, padding, dilation, groups, activation, slope, residual
) -> None:
    x, weight, bias, residual = widened(x, weight, bias, residual)
    dense = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if residual is not None:
        dense = dense + residual
    store(activate(dense, activation, slope), index, count, block, out)
