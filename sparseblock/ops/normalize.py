"""normalize: the channels of every pixel to the length 1, on active blocks."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_normalize = register("normalize(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, float eps) -> ()")


def normalize(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, eps: float = 1e-12) -> torch.Tensor:
    """out = torch.nn.functional.normalize(x, dim=1) in the active blocks; the rest keeps its bits.

    That is x over the root of the sum of its squares over the channels, or over `eps` where that is larger. The sum is
    in double precision.

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
        blocks: grid over `out`; a block is `blocks.block` pixels.
        out: [n, c, h, w], channels-last; written in place.
        eps: the least that is divided by.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `add`; a negative eps.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.normalize(x, blocks, x).shape
        torch.Size([1, 8, 30, 40])
    """
    op = "normalize"
    _check.pointwise(op, blocks, out, None, None, None, x)
    _check.eps(op, eps)
    _normalize(x, blocks.index, blocks.count, blocks.block, out, eps)
    return out
