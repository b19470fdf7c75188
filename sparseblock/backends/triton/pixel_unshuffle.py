"""pixel_unshuffle of the triton backend: shuffle.py."""

from __future__ import annotations

from sparseblock.backends.triton.shuffle import shuffle


def pixel_unshuffle(x, index, count, block, out, downscale_factor) -> None:
    shuffle("pixel_unshuffle", x, index, count, block, out, downscale_factor)
