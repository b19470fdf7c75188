"""softmax of the cpu backend: csrc/cpu/channel_norm.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu.channel_norm import channel_norm


def softmax(x, index, count, block, out) -> None:
    channel_norm("softmax", x, index, count, block, out)
