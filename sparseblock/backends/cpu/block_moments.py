"""block_moments of the cpu backend: csrc/cpu/block_moments.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def block_moments(x, index, count, block, out, cell, order) -> None:
    native.lib().sb_block_moments_run(
        byref(native.Moments(*x.shape[2:], *cell, order)),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
