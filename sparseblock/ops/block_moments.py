"""block_moments: mean, and squared deviations from it, of every cell of a map, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import cell_extent
from sparseblock.ops import _check
from sparseblock.ops._register import register

_block_moments = register(
    "block_moments(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int[2] cell, int order) -> ()"
)


def block_moments(
    x: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, cell: int | Sequence[int], order: int = 1
) -> torch.Tensor:
    """The moments of cells of `cell` pixels of `x`, in the active blocks of `out`; the rest keeps its bits.

    Statistics of a whole map stay exact at the price of its active blocks: keep `out` from frame to frame, give the
    blocks that changed, and let `global_avg_pool2d` or `group_norm` add up all cells. Sums are in double precision.

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` cells. Blocks of `cell` pixels of `x` are
            `blocks.with_block(1)` here.
        out: [n, order * c, rows, cols], channels-last, where rows and cols are h and w divided by the cell and rounded
            up: of each cell the mean [c], and with order 2 the sum over its pixels of (value - mean)^2 [c]. Cells at
            the edge count the pixels that lie in the map. Written in place, shares no memory with `x`.
        cell: pixels of `x`, one number or (vertical, horizontal).
        order: 1 or 2.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; and an order that is neither 1 nor 2.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> moments = torch.zeros(1, 8, 2, 3).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.block_moments(x, blocks.with_block(1), moments, cell=16).shape
        torch.Size([1, 8, 2, 3])
    """
    op = "block_moments"
    _check.planes(op, out, x=x)
    _check.maps(op, x)
    _check.statistics(op, "x", x, out=out)
    _check.writable(op, out)
    cell = _check.pair(op, "cell", cell, 1)
    if isinstance(order, bool) or not isinstance(order, int) or order not in (1, 2):
        raise SparseBlockError(
            f"{op}: order is {_check.shown(order)}; it must be 1 (means) or 2 (means and sums of squared deviations)"
        )
    extent = [cell_extent(*axis) for axis in zip(x.shape[2:], cell, strict=True)]
    _check.out_shape(op, out, (x.shape[0], order * x.shape[1], *extent), x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x)
    _block_moments(x, blocks.index, blocks.count, blocks.block, out, cell, order)
    return out
