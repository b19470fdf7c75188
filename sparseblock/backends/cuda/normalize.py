"""normalize of the cuda backend: csrc/cuda/channel_norm.cu."""

from __future__ import annotations

from sparseblock.backends.cuda.channel_norm import channel_norm


def normalize(x, index, count, block, out, eps) -> None:
    channel_norm("normalize", x, index, count, block, out, eps)
