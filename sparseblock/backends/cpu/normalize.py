"""normalize of the cpu backend: csrc/cpu/channel_norm.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu.channel_norm import channel_norm


def normalize(x, index, count, block, out, eps) -> None:
    channel_norm("normalize", x, index, count, block, out, eps)
