"""activation of the cpu backend: csrc/cpu/pointwise.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import native, pointwise


def activation(x, index, count, block, out, activation, slope, bounds) -> None:
    epilogue = native.epilogue_of(activation=activation, slope=slope, bounds=bounds)
    pointwise.run(epilogue, x, None, index, count, block, out)
