"""interpolate of the cpu backend: csrc/cpu/interpolate.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native
from sparseblock.grid import interpolate_scale

MODES = {"nearest": native.NEAREST, "bilinear": native.BILINEAR}


def interpolate(x, index, count, block, out, mode, align_corners, scale_factor) -> None:
    native.lib().sb_interpolate_run(
        byref(struct(x.shape, out.shape, mode, align_corners, scale_factor)),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )


def struct(size, out_size, mode, align_corners, scale_factor) -> native.Interpolate:
    """The resize of a map [n, c, h, w] of `size` to `out_size`."""
    scales = [
        interpolate_scale(*sides, mode, align_corners, factor)
        for *sides, factor in zip(size[2:], out_size[2:], scale_factor or (None, None), strict=True)
    ]
    return native.Interpolate(MODES[mode], align_corners, *scales)
