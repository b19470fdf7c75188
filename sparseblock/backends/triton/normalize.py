"""normalize of the triton backend: channel_norm.py."""

from __future__ import annotations

from sparseblock.backends.triton.channel_norm import channel_norm


def normalize(x, index, count, block, out, eps) -> None:
    channel_norm("normalize", x, index, count, block, out, eps=eps)
