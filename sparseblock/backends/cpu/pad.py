"""pad of the cpu backend: csrc/cpu/pad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def pad(x, index, count, block, out, padding, mode, value) -> None:
    left, _, top, _ = padding
    native.lib().sb_pad_run(
        byref(native.Pad(native.PAD_MODES[mode], top, left, value)),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
