"""gather of the cpu backend: csrc/cpu/gather.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def gather(x, index, count, block, out, halo) -> None:
    native.lib().sb_gather_run(
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        halo,
        out.data_ptr(),
        torch.get_num_threads(),
    )
