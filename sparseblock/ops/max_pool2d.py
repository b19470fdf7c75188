"""max_pool2d: maximum over a window, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_max_pool2d = register(
    "max_pool2d(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, bool ceil_mode) -> ()"
)


def max_pool2d(
    x: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> torch.Tensor:
    """out = torch.nn.functional.max_pool2d(x) in the active blocks, the very values; the rest keeps its bits.

    Args:
        x: [n, c, h, w], channels-last. Minus infinity counts outside of it.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, oh, ow], channels-last; written in place, shares no memory with `x`.
        kernel_size, stride, padding, dilation: pixels, one number or (vertical, horizontal); a stride of None is the
            kernel size; the padding is at most half of the kernel size.
        ceil_mode: the last window may hang over the end, as in PyTorch.

    Returns:
        `out`.

    Raises:
        SparseBlockError: shapes, dtypes, devices, layouts or block grid
            do not fit; memory is shared; or `out` is a leaf that requires grad.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 15, 20).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=8)
        >>> sparseblock.ops.max_pool2d(x, blocks, out, kernel_size=3, stride=2, padding=1).shape
        torch.Size([1, 8, 15, 20])
    """
    window = _check.window("max_pool2d", x, out, blocks, kernel_size, stride, padding, dilation, ceil_mode)
    _max_pool2d(x, blocks.index, blocks.count, blocks.block, out, *window, ceil_mode)
    return out
