"""avg_pool2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def avg_pool2d(
    x, index, count, block, out, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
) -> None:
    (x,) = widened(x)
    dense = F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    store(dense, index, count, block, out)
