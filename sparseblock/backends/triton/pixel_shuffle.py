"""pixel_shuffle of the triton backend: shuffle.py."""

from __future__ import annotations

from sparseblock.backends.triton.shuffle import shuffle


def pixel_shuffle(x, index, count, block, out, upscale_factor) -> None:
    shuffle("pixel_shuffle", x, index, count, block, out, upscale_factor)
