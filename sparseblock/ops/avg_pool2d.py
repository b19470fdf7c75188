"""avg_pool2d: average over a window, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.ops import _check
from sparseblock.ops._register import register

_avg_pool2d = register(
    "avg_pool2d(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, int[2] kernel_size, int[2] stride, "
    "int[2] padding, bool ceil_mode, bool count_include_pad, int? divisor_override) -> ()"
)


def avg_pool2d(
    x: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """out = torch.nn.functional.avg_pool2d(x) in the active blocks; the rest keeps its bits.

    Args:
        x: [n, c, h, w], channels-last. Zeros count outside of it.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, oh, ow], channels-last; written in place, shares no memory with `x`.
        kernel_size, stride, padding: pixels, one number or (vertical, horizontal); a stride of None is the kernel size;
            the padding is at most half of the kernel size.
        ceil_mode: the last window may hang over the end, as in PyTorch.
        count_include_pad: whether padding counts as elements of the window.
        divisor_override: what the sum is divided by instead of the number of elements.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; and a divisor that is no positive integer.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 15, 20).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=8)
        >>> sparseblock.ops.avg_pool2d(x, blocks, out, kernel_size=2).shape
        torch.Size([1, 8, 15, 20])
    """
    op = "avg_pool2d"
    _check.flag(op, "count_include_pad", count_include_pad)
    whole = isinstance(divisor_override, int) and not isinstance(divisor_override, bool)
    if divisor_override is not None and not (whole and 0 < divisor_override < _check.LIMIT):
        raise SparseBlockError(
            f"{op}: divisor_override is {_check.shown(divisor_override)}; "
            "it must be None or a positive integer below 2**31"
        )
    kernel_size, stride, padding, _ = _check.window(op, x, out, blocks, kernel_size, stride, padding, 1, ceil_mode)
    _avg_pool2d(
        x, blocks.index, blocks.count, blocks.block, out,
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
    )  # fmt: skip
    return out
