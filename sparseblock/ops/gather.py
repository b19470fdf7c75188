"""gather: active blocks with their halo, packed one after another."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.ops import _check
from sparseblock.ops._register import register

_gather = register("gather(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int halo) -> ()")


def gather(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, halo: int = 0) -> torch.Tensor:
    """out[i] = the i-th active block of `x` with `halo` more pixels on every side, zeros outside of the frame.

    For dense code of one's own on packed blocks; the ops of this package read planes in place and need none.

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `x`; a block is `blocks.block` pixels of `x`.
        out: [capacity, c, block height + 2 halo, block width + 2 halo], channels-last without gaps, where capacity is
            `len(blocks.index)`; written in place, shares no memory with `x`. Rows past the count keep their bits.
        halo: pixels.

    Returns:
        `out`.

    Raises:
        SparseBlockError: shapes, dtypes, devices, layouts or block grid
            do not fit; memory is shared; or `out` is a leaf that requires grad.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> packed = torch.empty(6, 8, 18, 18).contiguous(memory_format=torch.channels_last)
        >>> sparseblock.ops.gather(x, blocks, packed, halo=1).shape
        torch.Size([6, 8, 18, 18])
    """
    op = "gather"
    if isinstance(halo, bool) or not isinstance(halo, int) or not 0 <= halo < _check.LIMIT:
        raise SparseBlockError(f"{op}: halo is {halo!r}; it must be an integer of at least 0 and below 2**31 (pixels)")
    _check.planes(op, x, x=x)
    _check.blocks(op, blocks, x, name="x")
    _check.packed(op, "out", out, blocks, x.shape[1], halo)
    _check.tensors(op, out, x=x)
    _check.apart(op, out, x=x)
    _gather(x, blocks.index, blocks.count, blocks.block, out, halo)
    return out
