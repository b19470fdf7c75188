"""activation of the reference backend."""

from __future__ import annotations

from sparseblock.backends.reference.masked import activate, store


def activation(x, index, count, block, out, activation, slope) -> None:
    store(activate(x, activation, slope), index, count, block, out)
