"""max_pool2d of the triton backend: pool2d.py."""

from __future__ import annotations

from sparseblock.backends.triton import pool2d


def max_pool2d(x, index, count, block, out, kernel_size, stride, padding, dilation, ceil_mode) -> None:
    pool2d.run("max", x, index, count, block, out, kernel_size, stride, padding, dilation)
