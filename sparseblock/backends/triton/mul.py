"""mul of the triton backend: pointwise.py."""

from __future__ import annotations

from sparseblock.backends.triton import pointwise


def mul(x, y, index, count, block, out, activation, slope, bounds) -> None:
    fused = {"activation": activation, "slope": slope, "bounds": bounds}
    pointwise.run(x, index, count, block, out, residual=y, combine="mul", **fused)
