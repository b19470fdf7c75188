"""interpolate of the cuda backend: csrc/cuda/interpolate.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cpu.interpolate import struct
from sparseblock.backends.cuda.launch import elementwise, kernel_of


def interpolate(x, index, count, block, out, mode, align_corners, scale_factor) -> None:
    resize = struct(x.shape, out.shape, mode, align_corners, scale_factor)
    elementwise(kernel_of("interpolate", out), [resize, native.plane_of(x)], index, count, block, out)
