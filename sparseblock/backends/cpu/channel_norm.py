"""softmax, normalize and layer_norm of the cpu backend: csrc/cpu/channel_norm.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def channel_norm(kind, x, index, count, block, out, eps=0.0, **epilogue) -> None:
    native.lib().sb_channel_norm_run(
        byref(native.ChannelNorm(native.CHANNEL_NORMS[kind], eps)),
        byref(native.epilogue_of(**epilogue)),
        byref(native.plane_of(x)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
