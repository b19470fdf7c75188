"""conv2d of the cpu backend: csrc/cpu/conv2d.cpp, or by Winograd csrc/cpu/conv2d_winograd.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native, packed_weight
from sparseblock.backends.kept import kept
from sparseblock.errors import SparseBlockError


def conv2d(
    x, weight, bias, index, count, block, out, stride, padding, dilation, groups,
    activation, slope, bounds, residual, combine, padding_mode, algorithm,
) -> None:  # fmt: skip
    if algorithm not in native.ALGORITHMS:
        known = ", ".join(native.ALGORITHMS)
        raise SparseBlockError(f"conv2d: algorithm is {algorithm!r}, but the cpu backend has {known} alone")
    conv = native.Conv2d(
        x.shape[1], out.shape[1], groups, *weight.shape[2:], *stride, *padding, *dilation,
        transposed=0, pad_mode=native.PAD_MODES[padding_mode], algorithm=native.ALGORITHMS[algorithm],
    )  # fmt: skip
    fused = {"activation": activation, "slope": slope, "bounds": bounds, "combine": combine}
    run(conv, x, weight, bias, index, count, block, out, residual, fused)


def run(conv, x, weight, bias, index, count, block, out, residual, fused) -> None:
    """`conv`, transposed or not, on the planes of these tensors."""
    what = (bytes(conv), native.lib().sb_isa())
    packed = kept(weight, what, lambda: packed_weight.pack(conv, weight))
    conv.packed_weight = packed.data_ptr()
    native.lib().sb_conv2d_run(
        byref(conv),
        byref(native.epilogue_of(bias=bias, **fused)),
        byref(native.plane_of(x)),
        None if residual is None else byref(native.plane_of(residual.expand(out.shape))),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(out)),
        torch.get_num_threads(),
    )
