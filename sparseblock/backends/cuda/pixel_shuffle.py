"""pixel_shuffle of the cuda backend: csrc/cuda/shuffle.cu."""

from __future__ import annotations

from sparseblock.backends.cuda.shuffle import shuffle


def pixel_shuffle(x, index, count, block, out, upscale_factor) -> None:
    shuffle("pixel_shuffle", x, index, count, block, out, upscale_factor)
