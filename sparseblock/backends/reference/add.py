"""add of the reference backend."""

from __future__ import annotations

from sparseblock.backends.reference.masked import activate, store, widened


def add(x, y, index, count, block, out, activation, slope, bounds) -> None:
    x, y = widened(x, y)
    store(activate(x + y, activation, slope, bounds), index, count, block, out)
