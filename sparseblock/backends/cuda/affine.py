"""affine of the cuda backend: csrc/cuda/pointwise.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import pointwise


def affine(x, scale, shift, index, count, block, out, activation, slope, bounds) -> None:
    epilogue = native.epilogue_of(scale=scale, shift=shift, activation=activation, slope=slope, bounds=bounds)
    pointwise.run(epilogue, x, None, index, count, block, out)
