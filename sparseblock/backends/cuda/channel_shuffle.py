"""channel_shuffle of the cuda backend: csrc/cuda/shuffle.cu."""

from __future__ import annotations

from sparseblock.backends.cuda.shuffle import shuffle


def channel_shuffle(x, index, count, block, out, groups) -> None:
    shuffle("channel_shuffle", x, index, count, block, out, groups)
