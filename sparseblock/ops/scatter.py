"""scatter: packed blocks back to their places."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_scatter = register("scatter(Tensor packed, Tensor index, Tensor count, int[2] block, Tensor(a!) out) -> ()")


def scatter(packed: torch.Tensor, blocks: BlockSet, out: torch.Tensor) -> torch.Tensor:
    """The i-th active block of `out` = packed[i], clipped to the frame; the rest keeps its bits.

    Args:
        packed: [capacity, c, block height, block width], channels-last without gaps, where capacity is
            `len(blocks.index)`.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, h, w], channels-last; written in place, shares no memory with `packed`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `gather`.

    Example:
        >>> out = torch.zeros(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> packed = torch.randn(6, 8, 16, 16).contiguous(memory_format=torch.channels_last)
        >>> sparseblock.ops.scatter(packed, blocks, out).shape
        torch.Size([1, 8, 30, 40])
    """
    op = "scatter"
    _check.planes(op, out)
    _check.blocks(op, blocks, out)
    _check.packed(op, "packed", packed, blocks, out.shape[1], halo=0)
    _check.tensors(op, out, packed=packed)
    _check.apart(op, out, packed=packed)
    _scatter(packed, blocks.index, blocks.count, blocks.block, out)
    return out
