"""avg_pool2d of the cuda backend: csrc/cuda/pool2d.cu and pool2d_large.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import max_pool2d


def avg_pool2d(
    x, index, count, block, out, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
) -> None:
    pool = native.Pool2d(
        native.POOL_AVG, *kernel_size, *stride, *padding, 1, 1, count_include_pad, divisor_override or 0
    )
    max_pool2d.run(pool, x, index, count, block, out)
