"""channel_shuffle of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def channel_shuffle(x, index, count, block, out, groups) -> None:
    (x,) = widened(x)
    store(F.channel_shuffle(x, groups), index, count, block, out)
