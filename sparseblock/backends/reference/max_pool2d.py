"""max_pool2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store


def max_pool2d(x, index, count, block, out, kernel_size, stride, padding, dilation, ceil_mode) -> None:
    store(F.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode), index, count, block, out)
