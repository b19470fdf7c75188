"""scatter of the cpu backend: csrc/cpu/gather.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def scatter(packed, index, count, block, out) -> None:
    native.lib().sb_scatter_run(
        packed.data_ptr(),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
