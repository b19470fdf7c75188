"""cat of the reference backend."""

from __future__ import annotations

import torch

from sparseblock.backends.reference.masked import store


def cat(tensors, index, count, block, out) -> None:
    store(torch.cat(tensors, dim=1), index, count, block, out)
