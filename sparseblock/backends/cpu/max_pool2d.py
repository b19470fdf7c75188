"""max_pool2d of the cpu backend: csrc/cpu/pool2d.cpp."""

from __future__ import annotations

import math
from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def max_pool2d(x, index, count, block, out, kernel_size, stride, padding, dilation, ceil_mode) -> None:
    pool = native.Pool2d(native.POOL_MAX, *kernel_size, *stride, *padding, *dilation, outside=-math.inf)
    run(pool, x, index, count, block, out)


def run(pool, x, index, count, block, out) -> None:
    """`pool`, maximum or average, on the planes of these tensors. The size of `out` tells ceil mode."""
    native.lib().sb_pool2d_run(
        byref(pool),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
