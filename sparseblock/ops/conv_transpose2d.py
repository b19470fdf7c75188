"""conv_transpose2d: transposed convolution with fused bias, residual and activation, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import conv_transpose_extent
from sparseblock.ops import _check
from sparseblock.ops._register import register

_conv_transpose2d = register(
    "conv_transpose2d(Tensor x, Tensor weight, Tensor? bias, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "int[2] stride, int[2] padding, int[2] output_padding, int[2] dilation, int groups, str? activation, "
    "Tensor? slope, float[]? bounds, Tensor? residual, str combine) -> ()"
)


def conv_transpose2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str | None = None,
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
    residual: torch.Tensor | None = None,
    combine: str = "add",
) -> torch.Tensor:
    """out = activation(torch.conv_transpose2d(x, weight, bias) + residual) in active blocks; the rest keeps its bits.

    Args:
        x: [n, c, h, w], channels-last.
        weight: [c, k / groups, r, s], any layout; kept packed as `conv2d` keeps it.
        bias: [k] or None.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, k, oh, ow], channels-last; written in place, shares no memory with `x`.
            oh = (h - 1) stride - 2 padding + dilation (r - 1) + output_padding + 1.
        stride, padding, output_padding, dilation: pixels, one number or (vertical, horizontal), as in PyTorch.
        activation, slope, bounds, residual, combine: as in `conv2d`.

    Returns:
        `out`.

    Raises:
        SparseBlockError: as `conv2d`; and an output padding that is smaller than neither stride nor dilation.

    Example:
        >>> x = torch.randn(1, 8, 15, 20).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 4, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.conv_transpose2d(x, torch.randn(8, 4, 2, 2), None, blocks, out, stride=2).shape
        torch.Size([1, 4, 30, 40])
    """
    op = "conv_transpose2d"
    planes = {"x": x} if residual is None else {"x": x, "residual": residual}
    _check.planes(op, out, **planes)
    _check.strided(op, "weight", weight)
    _check.tensors(op, out, x=x, residual=residual)
    _check.parameters(op, out, weight=weight, bias=bias)
    stride, padding = _check.pair(op, "stride", stride, 1), _check.pair(op, "padding", padding, 0)
    dilation = _check.pair(op, "dilation", dilation, 1)
    output_padding = _check.pair(op, "output_padding", output_padding, 0)
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise SparseBlockError(
            f"{op}: output_padding is {output_padding} with stride {stride} and dilation {dilation}; "
            "it must be smaller than either"
        )
    if weight.dim() != 4 or min(weight.shape) < 1:
        raise SparseBlockError(f"{op}: weight is {list(weight.shape)}; it must be [c, k / groups, r, s], none empty")
    c, per_group, *kernel = weight.shape
    if c != x.shape[1]:
        raise SparseBlockError(
            f"{op}: weight has {c} input channels but x has {x.shape[1]} (x: {_check.shape(x)}); "
            "weight.shape[0] must equal c"
        )
    if not _check.divides(groups, c):
        raise SparseBlockError(
            f"{op}: groups is {_check.shown(groups)} for {c} input channels; "
            "it must be a positive divisor of weight.shape[0]"
        )
    axes = zip(x.shape[2:], kernel, stride, padding, dilation, output_padding, strict=True)
    extent = [conv_transpose_extent(*sizes) for sizes in axes]
    if min(extent) < 1:
        raise SparseBlockError(
            f"{op}: padding {padding} leaves nothing of x {_check.shape(x)} under a kernel of {kernel[0]}x{kernel[1]}; "
            "pad less"
        )
    k = per_group * groups
    _check.out_shape(op, out, (x.shape[0], k, *extent), x=x)
    if residual is not None:
        _check.second_input(op, "residual", residual, out)
    _check.combination(op, combine)
    _check.channel_vector(op, "bias", bias, k)
    fused = _check.activation(op, activation, slope, bounds, out)
    _check.parameters(op, out, slope=fused[1])
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x, weight=weight, bias=bias)
    _check.apart(op, out, place=out, residual=residual)
    _conv_transpose2d(
        x, weight, bias, blocks.index, blocks.count, blocks.block, out,
        stride, padding, output_padding, dilation, groups, *fused, residual, combine,
    )  # fmt: skip
    return out
