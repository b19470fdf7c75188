"""adaptive_avg_pool2d of the cpu backend: csrc/cpu/pool2d.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import max_pool2d, native


def adaptive_avg_pool2d(x, index, count, block, out) -> None:
    max_pool2d.run(native.Pool2d(native.POOL_AVG, adaptive=1), x, index, count, block, out)
