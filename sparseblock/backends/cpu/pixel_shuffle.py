"""pixel_shuffle of the cpu backend: csrc/cpu/shuffle.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu.shuffle import shuffle


def pixel_shuffle(x, index, count, block, out, upscale_factor) -> None:
    shuffle("pixel_shuffle", x, index, count, block, out, upscale_factor)
