"""Weights as the kernels of csrc/cpu read them."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native
from sparseblock.errors import SparseBlockError


def missing(algorithm: int) -> str | None:
    """Why the instruction set in force does not compute a number of `native.ALGORITHMS`; None: it does."""
    if native.lib().sb_conv2d_has(algorithm):
        return None
    lacking = {native.PAIRS: "AVX512-BF16", native.AMX: "AMX-BF16"}[algorithm]
    return f"the processor, or the instruction set in force ({native.lib().sb_isa().decode()}), lacks {lacking}"


def pack(conv: native.Conv2d, weight: torch.Tensor) -> torch.Tensor:
    """The packed form of `weight`, [k, c / groups, r, s] or transposed [c, k / groups, r, s], for `conv`.

    Raises:
        SparseBlockError: the instruction set in force lacks the algorithm.
    """
    against = missing(conv.algorithm)
    if against:
        name = {number: name for name, number in native.ALGORITHMS.items()}[conv.algorithm]
        raise SparseBlockError(f"conv2d: algorithm is {name!r}, but {against}; use 'direct'")
    packed = torch.empty(native.lib().sb_conv2d_packed_size(byref(conv)))
    contiguous = weight.float().contiguous()
    native.lib().sb_conv2d_pack(byref(conv), contiguous.data_ptr(), packed.data_ptr())
    return packed


def evict(packed: torch.Tensor) -> None:
    """Takes a packed weight out of the processor's caches, where no frame finds it again."""
    native.lib().sb_evict(packed.data_ptr(), packed.nbytes)
