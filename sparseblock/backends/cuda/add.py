"""add of the cuda backend: csrc/cuda/pointwise.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import pointwise


def add(x, y, index, count, block, out, activation, slope, bounds) -> None:
    epilogue = native.epilogue_of(activation=activation, slope=slope, bounds=bounds)
    pointwise.run(epilogue, x, y, index, count, block, out)
