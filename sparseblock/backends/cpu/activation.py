"""activation of the cpu backend: csrc/cpu/pointwise.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import native, pointwise


def activation(x, index, count, block, out, activation, slope) -> None:
    pointwise.run(native.epilogue_of(activation=activation, slope=slope), x, None, index, count, block, out)
