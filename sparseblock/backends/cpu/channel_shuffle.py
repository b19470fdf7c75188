"""channel_shuffle of the cpu backend: csrc/cpu/shuffle.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu.shuffle import shuffle


def channel_shuffle(x, index, count, block, out, groups) -> None:
    shuffle("channel_shuffle", x, index, count, block, out, groups)
