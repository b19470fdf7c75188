"""affine of the reference backend."""

from __future__ import annotations

from sparseblock.backends.reference.masked import activate, store, widened


def affine(x, scale, shift, index, count, block, out, activation, slope, bounds) -> None:
    x, scale, shift = widened(x, scale, shift)
    dense = x * scale[:, None, None] + shift[:, None, None]
    store(activate(dense, activation, slope, bounds), index, count, block, out)
