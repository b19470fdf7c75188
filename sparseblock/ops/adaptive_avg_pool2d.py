"""adaptive_avg_pool2d: average over windows that divide the map among the outputs, on active blocks."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_adaptive_avg_pool2d = register(
    "adaptive_avg_pool2d(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out) -> ()"
)


def adaptive_avg_pool2d(x: torch.Tensor, blocks: BlockSet, out: torch.Tensor) -> torch.Tensor:
    """out = torch.nn.functional.adaptive_avg_pool2d(x, out.shape[2:]) in the active blocks; the rest keeps its bits.

    Output i of o along an axis of s pixels takes pixels [floor(i s / o), ceil((i + 1) s / o)).

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, oh, ow], channels-last, of any size; written in place, shares no memory with `x`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 7, 7).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=2, block=4)
        >>> sparseblock.ops.adaptive_avg_pool2d(x, blocks, out).shape
        torch.Size([1, 8, 7, 7])
    """
    _check.adaptive("adaptive_avg_pool2d", x, out, blocks)
    _adaptive_avg_pool2d(x, blocks.index, blocks.count, blocks.block, out)
    return out
