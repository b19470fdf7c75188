"""activation of the reference backend."""

from __future__ import annotations

from sparseblock.backends.reference.masked import activate, store, widened


def activation(x, index, count, block, out, activation, slope, bounds) -> None:
    (x,) = widened(x)
    store(activate(x, activation, slope, bounds), index, count, block, out)
