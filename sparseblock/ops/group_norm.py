"""group_norm: normalization by the statistics of a whole map, with fused activation, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.ops import _check
from sparseblock.ops._register import register

_group_norm = register(
    "group_norm(Tensor x, Tensor moments, Tensor? weight, Tensor? bias, Tensor index, Tensor count, int[2] block, "
    "Tensor(a!) out, int num_groups, float eps, int[2] cell, str? activation, Tensor? slope, float[]? bounds) -> ()"
)


def group_norm(
    x: torch.Tensor,
    moments: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    num_groups: int,
    cell: int | Sequence[int],
    eps: float = 1e-5,
    activation: str | None = None,
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
) -> torch.Tensor:
    """out = activation(torch.nn.functional.group_norm(x)) in the active blocks; the rest keeps its bits.

    Mean and variance of the frame come from `moments`, which the caller has brought up to date with `block_moments`.
    Instance norm is this with `num_groups` = c, layer norm over the whole map with 1. Cells are joined as in Chan,
    Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), in double
    precision.

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
        moments: [n, 2 * c, rows, cols], channels-last, from `block_moments` of order 2.
        weight, bias: [c] or None.
        blocks: grid over `out`; a block is `blocks.block` pixels.
        out: [n, c, h, w], channels-last; written in place, shares no memory with `moments`.
        num_groups: a divisor of c.
        cell: as given to `block_moments`.
        eps: added to the variance.
        activation, slope, bounds: as in `conv2d`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `add`; moments that are not those of `x`, groups that do not divide c, a negative eps.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> moments = torch.zeros(1, 16, 2, 3).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.block_moments(x, blocks.with_block(1), moments, cell=16, order=2).shape
        torch.Size([1, 16, 2, 3])
        >>> sparseblock.ops.group_norm(x, moments, None, None, blocks, x, num_groups=2, cell=16).shape
        torch.Size([1, 8, 30, 40])
    """
    op = "group_norm"
    _check.planes(op, out, moments=moments)
    fused = _check.pointwise(op, blocks, out, activation, slope, bounds, x)
    _check.statistics(op, "out", out, moments=moments)
    _check.parameters(op, out, weight=weight, bias=bias)
    cell, channels = _check.pair(op, "cell", cell, 1), out.shape[1]
    _check.moments(op, moments, out.shape, cell, 2)
    for name, vector in (("weight", weight), ("bias", bias)):
        _check.channel_vector(op, name, vector, channels)
    if not _check.divides(num_groups, channels):
        raise SparseBlockError(
            f"{op}: num_groups is {_check.shown(num_groups)} for {channels} channels; "
            "it must be a positive divisor of them"
        )
    _check.eps(op, eps)
    _check.apart(op, out, moments=moments)
    _group_norm(
        x, moments, weight, bias, blocks.index, blocks.count, blocks.block, out,
        num_groups, eps, cell, *fused,
    )  # fmt: skip
    return out
