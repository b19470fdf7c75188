"""pixel_shuffle, pixel_unshuffle and channel_shuffle of the cuda backend: csrc/cuda/shuffle.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise, kernel_of


def shuffle(kind, x, index, count, block, out, factor) -> None:
    given = native.Shuffle(native.SHUFFLES[kind], factor)
    elementwise(kernel_of("shuffle", out), [given, native.plane_of(x)], index, count, block, out)
