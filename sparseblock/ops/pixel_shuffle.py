"""pixel_shuffle: channels become pixels, on active blocks."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_pixel_shuffle = register(
    "pixel_shuffle(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int upscale_factor) -> ()"
)


def pixel_shuffle(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, upscale_factor: int) -> torch.Tensor:
    """out = torch.nn.functional.pixel_shuffle(x) in the active blocks, its bits; the rest keeps its own.

    Args:
        x: [n, c * r * r, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, h * r, w * r], channels-last; written in place, shares no memory with `x`.
        upscale_factor: r, output pixels per input pixel along both axes.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; channels that r * r does not divide.

    Example:
        >>> x = torch.randn(1, 12, 15, 20).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 3, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.pixel_shuffle(x, blocks, out, upscale_factor=2).shape
        torch.Size([1, 3, 30, 40])
    """
    op = "pixel_shuffle"
    _check.planes(op, out, x=x)
    _check.tensors(op, out, x=x)
    n, c, h, w = x.shape
    _check.factor(op, "upscale_factor", upscale_factor, (c,), power=2)
    _check.out_shape(op, out, (n, c // upscale_factor**2, h * upscale_factor, w * upscale_factor), x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x)
    _pixel_shuffle(x, blocks.index, blocks.count, blocks.block, out, upscale_factor)
    return out
