"""mul of the cpu backend: csrc/cpu/pointwise.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import native, pointwise


def mul(x, y, index, count, block, out, activation, slope, bounds) -> None:
    epilogue = native.epilogue_of(activation=activation, slope=slope, bounds=bounds, combine="mul")
    pointwise.run(epilogue, x, y, index, count, block, out)
