"""avg_pool2d of the cpu backend: csrc/cpu/pool2d.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import max_pool2d, native


def avg_pool2d(
    x, index, count, block, out, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
) -> None:
    pool = native.Pool2d(
        native.POOL_AVG, *kernel_size, *stride, *padding, 1, 1, count_include_pad, divisor_override or 0
    )
    max_pool2d.run(pool, x, index, count, block, out)
