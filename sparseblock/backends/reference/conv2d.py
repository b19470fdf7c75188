"""conv2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import activate, combined, store, widened


def conv2d(
    x, weight, bias, index, count, block, out, stride, padding, dilation, groups,
    activation, slope, bounds, residual, combine,
) -> None:  # fmt: skip
    x, weight, bias, residual = widened(x, weight, bias, residual)
    dense = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    store(activate(combined(dense, residual, combine), activation, slope, bounds), index, count, block, out)
