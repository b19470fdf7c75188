"""pixel_unshuffle: pixels become channels, on active blocks."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_pixel_unshuffle = register(
    "pixel_unshuffle(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int downscale_factor) -> ()"
)


def pixel_unshuffle(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, downscale_factor: int) -> torch.Tensor:
    """out = torch.nn.functional.pixel_unshuffle(x) in the active blocks, its bits; the rest keeps its own.

    Args:
        x: [n, c, h * r, w * r], channels-last.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c * r * r, h, w], channels-last; written in place, shares no memory with `x`.
        downscale_factor: r, input pixels per output pixel along both axes.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; sides that r does not divide.

    Example:
        >>> x = torch.randn(1, 3, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 12, 15, 20).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=1, cols=2, block=16)
        >>> sparseblock.ops.pixel_unshuffle(x, blocks, out, downscale_factor=2).shape
        torch.Size([1, 12, 15, 20])
    """
    op = "pixel_unshuffle"
    _check.planes(op, out, x=x)
    _check.tensors(op, out, x=x)
    n, c, h, w = x.shape
    _check.factor(op, "downscale_factor", downscale_factor, (h, w))
    _check.out_shape(op, out, (n, c * downscale_factor**2, h // downscale_factor, w // downscale_factor), x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x)
    _pixel_unshuffle(x, blocks.index, blocks.count, blocks.block, out, downscale_factor)
    return out
