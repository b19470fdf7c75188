"""Packed weights: made once per weight tensor, kept as long as it lives."""

from __future__ import annotations

from ctypes import byref

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from sparseblock.backends.cpu import native
from sparseblock.errors import SparseBlockError

# weight -> {geometry of the convolution: (version and alias of the weight when it was packed, packed weight)}
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def missing(algorithm: int) -> str | None:
    """Why the instruction set in force does not compute a number of `native.ALGORITHMS`; None: it does."""
    if native.lib().sb_conv2d_has(algorithm):
        return None
    return f"the processor, or the instruction set in force ({native.lib().sb_isa().decode()}), lacks AVX512-BF16"


def pack(conv: native.Conv2d, weight: torch.Tensor) -> torch.Tensor:
    """The packed form of `weight`, [k, c / groups, r, s] or transposed [c, k / groups, r, s], for `conv`.

    Raises:
        SparseBlockError: the instruction set in force lacks the algorithm.
    """
    against = missing(conv.algorithm)
    if against:
        raise SparseBlockError(f"conv2d: algorithm is 'bf16_pairs', but {against}; use 'direct'")
    packed = torch.empty(native.lib().sb_conv2d_packed_size(byref(conv)))
    contiguous = weight.float().contiguous()
    native.lib().sb_conv2d_pack(byref(conv), contiguous.data_ptr(), packed.data_ptr())
    return packed


def kept(conv: native.Conv2d, weight: torch.Tensor) -> torch.Tensor:
    """`pack`, but only when `weight` was not packed for this geometry since it was last changed.

    The change is told by torch's version counter. A tensor of inference mode has none: it is packed at every call.
    """
    if weight.is_inference():
        return pack(conv, weight)
    geometry = (bytes(conv), native.lib().sb_isa())
    of_weight = _kept.setdefault(weight, {})
    state = (weight._version, weight.data_ptr())
    if geometry not in of_weight or of_weight[geometry][0] != state:
        # The alias keeps the memory from being given to another tensor at the same address while this entry lives.
        of_weight[geometry] = (state, weight.detach(), pack(conv, weight))
    return of_weight[geometry][2]
