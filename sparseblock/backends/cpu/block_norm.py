"""block_norm of the cpu backend: csrc/cpu/block_norm.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def block_norm(x, y, index, count, block, out, cell, norm) -> None:
    native.lib().sb_block_norm_run(
        byref(native.BlockNorm(native.NORMS[norm], *cell)),
        byref(native.plane_of(x)),
        None if y is None else byref(native.plane_of(y)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
