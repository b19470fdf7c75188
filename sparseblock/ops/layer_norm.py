"""layer_norm: normalization over the channels of every pixel, with fused activation, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_layer_norm = register(
    "layer_norm(Tensor x, Tensor? weight, Tensor? bias, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "float eps, str? activation, Tensor? slope, float[]? bounds) -> ()"
)


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    eps: float = 1e-5,
    activation: str | None = None,
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
) -> torch.Tensor:
    """out = activation((x - mean) / sqrt(variance + eps) * weight + bias) in active blocks; the rest keeps its bits.

    Mean and variance are those of the channels of a pixel, as in ConvNeXt's LayerNorm2d, which is
    torch.nn.functional.layer_norm of the map with its channels last. They are in double precision. (Layer norm over the
    whole map is `group_norm` with one group.)

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
        weight, bias: [c] or None.
        blocks: grid over `out`; a block is `blocks.block` pixels.
        out: [n, c, h, w], channels-last; written in place.
        eps: added to the variance.
        activation, slope, bounds: as in `conv2d`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `add`; a negative eps.

    Example:
        >>> x = torch.randn(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.layer_norm(x, torch.ones(8), torch.zeros(8), blocks, x, eps=1e-6).shape
        torch.Size([1, 8, 30, 40])
    """
    op = "layer_norm"
    fused = _check.pointwise(op, blocks, out, activation, slope, bounds, x)
    _check.parameters(op, out, weight=weight, bias=bias)
    for name, vector in (("weight", weight), ("bias", bias)):
        _check.channel_vector(op, name, vector, out.shape[1])
    _check.eps(op, eps)
    _layer_norm(x, weight, bias, blocks.index, blocks.count, blocks.block, out, eps, *fused)
    return out
