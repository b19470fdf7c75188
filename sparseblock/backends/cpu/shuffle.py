"""pixel_shuffle, pixel_unshuffle and channel_shuffle of the cpu backend: csrc/cpu/shuffle.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def shuffle(kind, x, index, count, block, out, factor) -> None:
    native.lib().sb_shuffle_run(
        byref(native.Shuffle(native.SHUFFLES[kind], factor)),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
