"""block_norm: how large a map, or the difference of two maps, is in every cell, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import cell_extent
from sparseblock.ops import _check
from sparseblock.ops._register import register

_block_norm = register(
    "block_norm(Tensor x, Tensor? y, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int[2] cell, str norm) "
    "-> ()"
)
NORMS = ("l1", "l2", "max")


def block_norm(
    x: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    cell: int | Sequence[int],
    norm: str = "l1",
    y: torch.Tensor | None = None,
) -> torch.Tensor:
    """The norm of each cell of `cell` pixels and all channels of `x`, or of `x - y`, in the active blocks of `out`.

    What a gate needs that lets through the blocks in which a frame differs from another. Sums are in double precision.

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` cells. Blocks of `cell` pixels of `x` are
            `blocks.with_block(1)` here.
        out: [n, 1, rows, cols], channels-last, where rows and cols are h and w divided by the cell and rounded up;
            float32 beside maps in bfloat16 or float16. Cells at the edge count the pixels that lie in the map. Written
            in place, shares no memory with `x` and `y`.
        cell: pixels of `x`, one number or (vertical, horizontal).
        norm: "l1", the sum of magnitudes; "l2", the root of the sum of squares; "max", the largest magnitude. NaN gives
            NaN.
        y: as `x`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; and a norm that is none of these.

    Example:
        >>> x, y = (torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last) for _ in range(2))
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.block_norm(x, blocks.with_block(1), torch.zeros(1, 1, 2, 3), cell=16, y=y).shape
        torch.Size([1, 1, 2, 3])
    """
    op = "block_norm"
    maps = {"x": x} if y is None else {"x": x, "y": y}
    _check.planes(op, out, **maps)
    _check.maps(op, **maps)
    _check.statistics(op, "x", x, out=out)
    _check.writable(op, out)
    cell = _check.pair(op, "cell", cell, 1)
    if norm not in NORMS:
        raise SparseBlockError(f"{op}: norm is {norm!r}; it must be one of {', '.join(map(repr, NORMS))}")
    _check.same_shape(op, x, "x", **maps)
    extent = [cell_extent(*axis) for axis in zip(x.shape[2:], cell, strict=True)]
    _check.out_shape(op, out, (x.shape[0], 1, *extent), x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, **maps)
    _block_norm(x, y, blocks.index, blocks.count, blocks.block, out, cell, norm)
    return out
