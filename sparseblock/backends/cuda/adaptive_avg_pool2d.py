"""adaptive_avg_pool2d of the cuda backend: csrc/cuda/pool2d.cu and pool2d_large.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import max_pool2d


def adaptive_avg_pool2d(x, index, count, block, out) -> None:
    max_pool2d.run(native.Pool2d(native.POOL_AVG, adaptive=1), x, index, count, block, out)
