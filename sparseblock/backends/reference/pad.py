"""pad of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def pad(x, index, count, block, out, padding, mode, value) -> None:
    (x,) = widened(x)
    store(F.pad(x, padding, mode, value if mode == "constant" else None), index, count, block, out)
