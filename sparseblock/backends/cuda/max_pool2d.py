"""max_pool2d of the cuda backend: csrc/cuda/pool2d.cu."""

from __future__ import annotations

import math

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise, kernel_of
from sparseblock.errors import SparseBlockError


def max_pool2d(x, index, count, block, out, kernel_size, stride, padding, dilation, ceil_mode) -> None:
    pool = native.Pool2d(native.POOL_MAX, *kernel_size, *stride, *padding, *dilation, outside=-math.inf)
    run(pool, x, index, count, block, out)


def run(pool, x, index, count, block, out) -> None:
    """`pool`, maximum or average, on the planes of these tensors. The size of `out` tells ceil mode."""
    if pool.adaptive and max(out.shape[2:]) >= 1 << 16:  # so that the kernel counts in 32 bits
        raise SparseBlockError(
            f"adaptive pooling of the cuda backend makes maps of less than {1 << 16} rows and columns, not "
            f"{tuple(out.shape[2:])}; split the map, or move the tensors to cpu"
        )
    elementwise(kernel_of("pool2d", out), [pool, native.plane_of(x)], index, count, block, out)
