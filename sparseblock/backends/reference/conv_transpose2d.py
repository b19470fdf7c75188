"""conv_transpose2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import activate, store, widened


def conv_transpose2d(
    x,
    weight,
    bias,
    index,
    count,
    block,
    out,
    stride,
    padding,
    output_padding,
    dilation,
    groups,
    activation,
    slope,
    residual,
) -> None:
    x, weight, bias, residual = widened(x, weight, bias, residual)
    dense = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)
    if residual is not None:
        dense = dense + residual
    store(activate(dense, activation, slope), index, count, block, out)
