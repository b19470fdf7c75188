"""add of the reference backend."""

from __future__ import annotations

from sparseblock.backends.reference.masked import activate, store


def add(x, y, index, count, block, out, activation, slope) -> None:
    store(activate(x + y, activation, slope), index, count, block, out)
