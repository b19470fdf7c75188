"""channel_shuffle of the triton backend: shuffle.py."""

from __future__ import annotations

from sparseblock.backends.triton.shuffle import shuffle


def channel_shuffle(x, index, count, block, out, groups) -> None:
    shuffle("channel_shuffle", x, index, count, block, out, groups)
