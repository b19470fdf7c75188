"""group_norm of the cpu backend: csrc/cpu/group_norm.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def group_norm(
    x, moments, weight, bias, index, count, block, out, num_groups, eps, cell, activation, slope, bounds
) -> None:
    epilogue = native.epilogue_of(scale=weight, shift=bias, activation=activation, slope=slope, bounds=bounds)
    native.lib().sb_group_norm_run(
        byref(native.GroupNorm(native.Moments(*out.shape[2:], *cell, 2), num_groups, eps)),
        byref(epilogue),
        byref(native.plane_of(x)),
        byref(native.plane_of(moments)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
