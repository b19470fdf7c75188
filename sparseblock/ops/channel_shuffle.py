"""channel_shuffle: channels of all groups in turn, on active blocks."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_channel_shuffle = register(
    "channel_shuffle(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int groups) -> ()"
)


def channel_shuffle(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor, *, groups: int) -> torch.Tensor:
    """out = torch.nn.functional.channel_shuffle(x) in the active blocks, its bits; the rest keeps its own.

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, h, w], channels-last; written in place, shares no memory with `x`.
        groups: a divisor of c; the first channels of all groups come first, then their second ones.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; groups that do not divide c.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.channel_shuffle(x, blocks, out, groups=2).shape
        torch.Size([1, 8, 30, 40])
    """
    op = "channel_shuffle"
    _check.planes(op, out, x=x)
    _check.tensors(op, out, x=x)
    _check.factor(op, "groups", groups, x.shape[1:2])
    _check.out_shape(op, out, x.shape, x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x)
    _channel_shuffle(x, blocks.index, blocks.count, blocks.block, out, groups)
    return out
