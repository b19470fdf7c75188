"""normalize of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def normalize(x, index, count, block, out, eps) -> None:
    (x,) = widened(x)
    store(F.normalize(x, dim=1, eps=eps), index, count, block, out)
