"""pixel_unshuffle of the cuda backend: csrc/cuda/shuffle.cu."""

from __future__ import annotations

from sparseblock.backends.cuda.shuffle import shuffle


def pixel_unshuffle(x, index, count, block, out, downscale_factor) -> None:
    shuffle("pixel_unshuffle", x, index, count, block, out, downscale_factor)
