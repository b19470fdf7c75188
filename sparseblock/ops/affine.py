"""affine: scale and shift per channel, with fused activation, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_affine = register(
    "affine(Tensor x, Tensor scale, Tensor shift, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "str? activation, Tensor? slope, float[]? bounds) -> ()"
)


def affine(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    activation: str | None = None,
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
) -> torch.Tensor:
    """out = activation(x * scale + shift) in the active blocks; the rest keeps its bits.

    A batch norm in eval mode is this, with scale = weight / sqrt(var + eps) and shift = bias - mean * scale.

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
        scale, shift: [c].
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
        >>> sparseblock.ops.affine(x, torch.ones(8), torch.zeros(8), blocks, x, activation="relu").shape
        torch.Size([1, 8, 30, 40])
    """
    op = "affine"
    fused = _check.pointwise(op, blocks, out, activation, slope, bounds, x)
    for name, vector in (("scale", scale), ("shift", shift)):
        _check.strided(op, name, vector)
    _check.parameters(op, out, scale=scale, shift=shift)
    for name, vector in (("scale", scale), ("shift", shift)):
        _check.channel_vector(op, name, vector, out.shape[1])
    _affine(x, scale, shift, blocks.index, blocks.count, blocks.block, out, *fused)
    return out
