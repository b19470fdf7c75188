"""affine of the triton backend: pointwise.py."""

from __future__ import annotations

from sparseblock.backends.triton import pointwise


def affine(x, scale, shift, index, count, block, out, activation, slope, bounds) -> None:
    fused = {"activation": activation, "slope": slope, "bounds": bounds}
    pointwise.run(x, index, count, block, out, scale=scale, shift=shift, **fused)
