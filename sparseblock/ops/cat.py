"""cat: concatenation over channels; without a copy by `cat_slices`, with one on active blocks by `cat`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.ops import _check
from sparseblock.ops._register import register

_cat = register("cat(Tensor[] tensors, Tensor index, Tensor count, int[2] block, Tensor(a!) out) -> ()")


def cat_slices(out: torch.Tensor, channels: Sequence[int]) -> list[torch.Tensor]:
    """The places in `out` of the parts of a concatenation: pass each as the `out` of the op that makes the part.

    Args:
        out: [n, c, h, w], channels-last.
        channels: channels of each part, in order; their sum is c.

    Returns:
        Views of `out`, [n, channels[i], h, w].

    Raises:
        SparseBlockError: `out` is no channels-last [n, c, h, w], a part is empty, or the sum is not c.

    Example:
        >>> out = torch.zeros(1, 12, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> left, right = sparseblock.ops.cat_slices(out, [8, 4])
        >>> right.shape, right.data_ptr() == out[:, 8:].data_ptr()
        (torch.Size([1, 4, 30, 40]), True)
    """
    _check.planes("cat_slices", out)
    integers = isinstance(channels, Sequence) and all(type(length) is int and length > 0 for length in channels)
    if not integers or sum(channels) != out.shape[1]:
        raise SparseBlockError(
            f"cat_slices: channels are {_check.shown(channels)} for out {_check.shape(out)}; "
            "they must be positive integers that add up to c"
        )
    # Not `split`, whose parts autograd lets nobody write to.
    starts = itertools.accumulate(channels, initial=0)
    return [out.narrow(1, start, length) for start, length in zip(starts, channels, strict=False)]


def cat(tensors: Sequence[torch.Tensor], blocks: BlockSet, out: torch.Tensor) -> torch.Tensor:
    """out = torch.cat(tensors, dim=1) in the active blocks, bit for bit; the rest keeps its bits.

    Copies. Where the parts are made by other ops, `cat_slices` saves that.

    Args:
        tensors: each [n, c_i, h, w], channels-last; may be its own slice of `out`.
        blocks: grid over `out`; a block is `blocks.block` pixels.
        out: [n, sum of c_i, h, w], channels-last; written in place.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `add`.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 16, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> sparseblock.ops.cat([x, x], BlockSet.all(n=1, rows=2, cols=3, block=16), out).shape
        torch.Size([1, 16, 30, 40])
    """
    op = "cat"
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise SparseBlockError(
            f"{op}: tensors is {_check.shown(tensors)}; it must be a list of at least one tensor [n, c, h, w]"
        )
    parts = {f"tensors[{i}]": tensor for i, tensor in enumerate(tensors)}
    _check.planes(op, out, **parts)
    _check.tensors(op, out, **parts)
    n, _, h, w = tensors[0].shape
    _check.out_shape(op, out, (n, sum(tensor.shape[1] for tensor in tensors), h, w), **parts)
    for (name, tensor), place in zip(parts.items(), cat_slices(out, [t.shape[1] for t in tensors]), strict=True):
        _check.same_shape(op, place, **{name: tensor})
        _check.apart(op, out, place, **{name: tensor})
    _check.blocks(op, blocks, out)
    _cat(tensors, blocks.index, blocks.count, blocks.block, out)
    return out
