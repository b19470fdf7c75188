"""global_avg_pool2d: the mean of a whole map, from the means of its cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_global_avg_pool2d = register(
    "global_avg_pool2d(Tensor moments, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "int[2] size, int[2] cell) -> ()"
)


def global_avg_pool2d(
    moments: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, size: Sequence[int], cell: int | Sequence[int]
) -> torch.Tensor:
    """out = torch.nn.functional.adaptive_avg_pool2d(x, 1) for the map x whose cells have these means.

    All cells are added up, in one order and in double precision: the result depends on their values alone, not on when
    each was computed.

    Args:
        moments: [n, c, rows, cols], channels-last, from `block_moments` of order 1.
        blocks: grid over `out`, thus one block an image: the images to write.
        out: [n, c, 1, 1]; written in place, shares no memory with `moments`.
        size: h and w of x, pixels.
        cell: as given to `block_moments`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; and moments that are not those of a map of this size.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> moments = torch.zeros(1, 8, 2, 3).contiguous(memory_format=torch.channels_last)
        >>> mean = torch.zeros(1, 8, 1, 1)
        >>> sparseblock.ops.block_moments(x, BlockSet.all(n=1, rows=2, cols=3, block=1), moments, cell=16).shape
        torch.Size([1, 8, 2, 3])
        >>> images = BlockSet.all(n=1, rows=1, cols=1, block=1)
        >>> sparseblock.ops.global_avg_pool2d(moments, images, mean, size=(30, 40), cell=16).shape
        torch.Size([1, 8, 1, 1])
    """
    op = "global_avg_pool2d"
    _check.planes(op, out, moments=moments)
    _check.tensors(op, out)
    _check.statistics(op, "out", out, moments=moments)
    size, cell = _check.pair(op, "size", size, 1), _check.pair(op, "cell", cell, 1)
    _check.moments(op, moments, (*moments.shape[:2], *size), cell, 1)
    _check.out_shape(op, out, (*moments.shape[:2], 1, 1), moments=moments)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, moments=moments)
    _global_avg_pool2d(moments, blocks.index, blocks.count, blocks.block, out, size, cell)
    return out
