"""pad: pixels around a map, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.ops import _check
from sparseblock.ops._register import register

_pad = register(
    "pad(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "int[4] padding, str padding_mode, float value) -> ()"
)


def pad(
    x: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    padding: int | Sequence[int] | Sequence[Sequence[int]],
    mode: str = "constant",
    value: float = 0.0,
) -> torch.Tensor:
    """out = torch.nn.functional.pad(x) in the active blocks, its bits; the rest keeps its own.

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, top + h + bottom, left + w + right], channels-last; written in place, shares no memory with `x`.
        padding: pixels, one number, (vertical, horizontal), or ((top, bottom), (left, right)).
        mode: "constant", "reflect", "replicate" or "circular".
        value: of the constant.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `max_pool2d`; an unknown mode, more pixels than it can fill, or a value that it has not
            or `out` cannot hold.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 31, 43).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.pad(x, blocks, out, padding=((0, 1), (1, 2)), mode="reflect").shape
        torch.Size([1, 8, 31, 43])
    """
    op = "pad"
    _check.planes(op, out, x=x)
    _check.tensors(op, out, x=x)
    sides = _check.sides(op, padding)
    _check.padding_mode(op, mode, sides, x, ("constant", "reflect", "replicate", "circular"))
    _check.fill(op, value, out)
    if value and mode != "constant":
        raise SparseBlockError(f"{op}: value is {value!r} with mode {mode!r}; only 'constant' has one: leave it out")
    extent = [size + sum(around) for size, around in zip(x.shape[2:], sides, strict=True)]
    _check.out_shape(op, out, (*x.shape[:2], *extent), x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x)
    (top, bottom), (left, right) = sides
    _pad(x, blocks.index, blocks.count, blocks.block, out, [left, right, top, bottom], mode, value)
    return out
