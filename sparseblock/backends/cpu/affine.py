"""affine of the cpu backend: csrc/cpu/pointwise.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import native, pointwise


def affine(x, scale, shift, index, count, block, out, activation, slope, bounds) -> None:
    epilogue = native.epilogue_of(scale=scale, shift=shift, activation=activation, slope=slope, bounds=bounds)
    pointwise.run(epilogue, x, None, index, count, block, out)
