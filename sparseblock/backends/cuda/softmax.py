"""softmax of the cuda backend: csrc/cuda/channel_norm.cu."""

from __future__ import annotations

from sparseblock.backends.cuda.channel_norm import channel_norm


def softmax(x, index, count, block, out) -> None:
    channel_norm("softmax", x, index, count, block, out)
