"""max_pool2d of the cuda backend: csrc/cuda/pool2d.cu."""

from __future__ import annotations

import math

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise, kernel_of


def max_pool2d(x, index, count, block, out, kernel_size, stride, padding, dilation, ceil_mode) -> None:
    pool = native.Pool2d(native.POOL_MAX, *kernel_size, *stride, *padding, *dilation, outside=-math.inf)
    run(pool, x, index, count, block, out)


def run(pool, x, index, count, block, out) -> None:
    """`pool`, maximum or average, on the planes of these tensors. The size of `out` tells ceil mode."""
    elementwise(kernel_of("pool2d", out), [pool, native.plane_of(x)], index, count, block, out)
