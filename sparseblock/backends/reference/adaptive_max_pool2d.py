"""adaptive_max_pool2d of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store


def adaptive_max_pool2d(x, index, count, block, out) -> None:
    store(F.adaptive_max_pool2d(x, out.shape[2:]), index, count, block, out)
