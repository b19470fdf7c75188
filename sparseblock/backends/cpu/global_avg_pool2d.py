"""global_avg_pool2d of the cpu backend: csrc/cpu/global_avg_pool2d.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def global_avg_pool2d(moments, index, count, block, out, size, cell) -> None:
    native.lib().sb_global_avg_pool2d_run(
        byref(native.Moments(*size, *cell, 1)),
        byref(native.plane_of(moments)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
