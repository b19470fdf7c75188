"""interpolate of the cpu backend: csrc/cpu/interpolate.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native
from sparseblock.grid import interpolate_scale

MODES = {"nearest": native.NEAREST, "bilinear": native.BILINEAR}


def interpolate(x, index, count, block, out, mode, align_corners, scale_factor) -> None:
    scales = [
        interpolate_scale(size, out_size, mode, align_corners, factor)
        for size, out_size, factor in zip(x.shape[2:], out.shape[2:], scale_factor or (None, None), strict=True)
    ]
    native.lib().sb_interpolate_run(
        byref(native.Interpolate(MODES[mode], align_corners, *scales)),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
