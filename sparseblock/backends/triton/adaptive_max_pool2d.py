"""adaptive_max_pool2d of the triton backend: pool2d.py."""

from __future__ import annotations

from sparseblock.backends.triton import pool2d


def adaptive_max_pool2d(x, index, count, block, out) -> None:
    pool2d.adaptive("max", x, index, count, block, out)
