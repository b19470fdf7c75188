"""add of the cpu backend: csrc/cpu/pointwise.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import native, pointwise


def add(x, y, index, count, block, out, activation, slope, bounds) -> None:
    epilogue = native.epilogue_of(activation=activation, slope=slope, bounds=bounds)
    pointwise.run(epilogue, x, y, index, count, block, out)
