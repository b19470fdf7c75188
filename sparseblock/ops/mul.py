"""mul: element-wise product with fused activation, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_mul = register(
    "mul(Tensor x, Tensor y, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "str? activation, Tensor? slope, float[]? bounds) -> ()"
)


def mul(
    x: torch.Tensor,
    y: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    activation: str | None = None,
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
) -> torch.Tensor:
    """out = activation(x * y) in the active blocks; the rest keeps its bits.

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
        y: [n, c, h, w], channels-last, which may be `out` itself; or [n, c, 1, 1] or [n, 1, h, w], broadcast over the
            frame or over the channels.
        blocks: grid over `out`; a block is `blocks.block` pixels.
        out: [n, c, h, w], channels-last; written in place.
        activation, slope, bounds: as in `conv2d`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `add`.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> gate = torch.rand(1, 8, 1, 1)
        >>> sparseblock.ops.mul(x, gate, blocks, x).shape
        torch.Size([1, 8, 30, 40])
    """
    fused = _check.pointwise("mul", blocks, out, activation, slope, bounds, x, y)
    _mul(x, y, blocks.index, blocks.count, blocks.block, out, *fused)
    return out
