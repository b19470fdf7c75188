"""softmax: over the channels of every pixel, on active blocks."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_softmax = register("softmax(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out) -> ()")


def softmax(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor) -> torch.Tensor:
    """out = torch.softmax(x, dim=1) in the active blocks; the rest keeps its bits.

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
        blocks: grid over `out`; a block is `blocks.block` pixels.
        out: [n, c, h, w], channels-last; written in place. A pixel that holds a NaN or an infinity, but for minus
            infinity beside something larger, becomes NaN.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `add`.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.softmax(x, blocks, x).shape
        torch.Size([1, 8, 30, 40])
    """
    _check.pointwise("softmax", blocks, out, None, None, None, x)
    _softmax(x, blocks.index, blocks.count, blocks.block, out)
    return out
