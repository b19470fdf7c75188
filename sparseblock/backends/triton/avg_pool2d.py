"""avg_pool2d of the triton backend: pool2d.py."""

from __future__ import annotations

from sparseblock.backends.triton import pool2d


def avg_pool2d(
    x, index, count, block, out, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
) -> None:
    counts = {"count_include_pad": count_include_pad, "divisor": divisor_override}
    pool2d.run("avg", x, index, count, block, out, kernel_size, stride, padding, **counts)
