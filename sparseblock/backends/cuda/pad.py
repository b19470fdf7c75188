"""pad of the cuda backend: csrc/cuda/pad.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise, kernel_of


def pad(x, index, count, block, out, padding, mode, value) -> None:
    left, _, top, _ = padding
    given = native.Pad(native.PAD_MODES[mode], top, left, value)
    elementwise(kernel_of("pad", out), [given, native.plane_of(x)], index, count, block, out)
