"""The element-wise ops of the cpu backend all are csrc/cpu/pointwise.cpp with another epilogue."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def run(epilogue, x, residual, index, count, block, out) -> None:
    """out = epilogue(x, residual) on the planes of these tensors; the residual is broadcast to the shape of `out`."""
    native.lib().sb_pointwise_run(
        byref(epilogue),
        byref(native.plane_of(x)),
        None if residual is None else byref(native.plane_of(residual.expand(out.shape))),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
