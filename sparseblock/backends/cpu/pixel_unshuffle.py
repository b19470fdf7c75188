"""pixel_unshuffle of the cpu backend: csrc/cpu/shuffle.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu.shuffle import shuffle


def pixel_unshuffle(x, index, count, block, out, downscale_factor) -> None:
    shuffle("pixel_unshuffle", x, index, count, block, out, downscale_factor)
