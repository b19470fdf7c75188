"""activation: an activation function on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.ops import _check
from sparseblock.ops._register import register

_activation = register(
    "activation(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "str? activation, Tensor? slope, float[]? bounds) -> ()"
)


def activation(
    x: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    activation: str | None = "relu",
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
) -> torch.Tensor:
    """out = activation(x) in the active blocks; the rest keeps its bits. None copies bits.

    Functions that select or scale a value give the very values of PyTorch's; smooth ones (sigmoid, tanh, silu, gelu,
    gelu_tanh, mish, softplus, elu) come within 8 units of the last place of the exact value.

    Args:
        x: [n, c, h, w], channels-last; may be `out` itself.
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
        >>> sparseblock.ops.activation(x, blocks, x, activation="leaky_relu", slope=0.1).shape
        torch.Size([1, 8, 30, 40])
    """
    fused = _check.pointwise("activation", blocks, out, activation, slope, bounds, x)
    _activation(x, blocks.index, blocks.count, blocks.block, out, *fused)
    return out
