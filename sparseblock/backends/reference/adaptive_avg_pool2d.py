"""adaptive_avg_pool2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def adaptive_avg_pool2d(x, index, count, block, out) -> None:
    (x,) = widened(x)
    store(F.adaptive_avg_pool2d(x, out.shape[2:]), index, count, block, out)
