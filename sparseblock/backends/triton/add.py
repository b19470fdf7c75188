"""add of the triton backend: pointwise.py."""

from __future__ import annotations

from sparseblock.backends.triton import pointwise


def add(x, y, index, count, block, out, activation, slope, bounds) -> None:
    pointwise.run(x, index, count, block, out, residual=y, activation=activation, slope=slope, bounds=bounds)
