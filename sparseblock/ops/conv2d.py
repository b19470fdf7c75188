"""conv2d: convolution with fused bias, residual and activation, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import conv_extent
from sparseblock.ops import _check
from sparseblock.ops._register import register

_conv2d = register(
    "conv2d(Tensor x, Tensor weight, Tensor? bias, Tensor index, Tensor count, int[2] block, Tensor(a!) out, "
    "int[2] stride, int[2] padding, int[2] dilation, int groups, str? activation, Tensor? slope, float[]? bounds, "
    "Tensor? residual, str combine, str padding_mode, str algorithm) -> ()"
)


def conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | Sequence[Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    activation: str | None = None,
    slope: float | torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
    residual: torch.Tensor | None = None,
    combine: str = "add",
    algorithm: str = "direct",
) -> torch.Tensor:
    """out = activation(torch.conv2d(x, weight, bias) + residual) in the active blocks; the rest keeps its bits.

    Or activation(torch.conv2d(x, weight, bias) * residual), where `combine` is "mul". On CPUs subnormal numbers count
    as zero, as factors, addends and results.

    Args:
        x: [n, c, h, w], channels-last.
        weight: [k, c / groups, r, s], any layout. Backends keep a packed copy with this tensor, and pack again when the
            tensor was changed in place; they do not see changes behind torch's back (`weight.data`, numpy). On GPUs,
            beside bfloat16 and float16 maps, it is rounded to their dtype.
        bias: [k] or None.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, k, oh, ow], channels-last; written in place, shares no memory with `x`.
        stride, padding, dilation: pixels, one number or (vertical, horizontal); a padding may also be
            ((top, bottom), (left, right)).
        padding_mode: what counts outside of `x`, as in `torch.nn.Conv2d`: "zeros", "reflect", "replicate", "circular".
        activation: None, "relu", "relu6", "clamp", "leaky_relu", "prelu", "elu", "sigmoid", "tanh", "silu", "gelu",
            "gelu_tanh", "mish", "softplus", "hardsigmoid" or "hardswish", as in torch.nn.functional.
        slope: a number or a tensor [k] or [1]; of "prelu", of "leaky_relu" (0.01 where None), and of "elu", whose alpha
            it is (1 where None).
        bounds: of "clamp", (low, high).
        residual: [n, k, oh, ow], channels-last, which may be `out` itself; or [n, k, 1, 1] or [n, 1, oh, ow], broadcast
            over the frame or over the channels; or None.
        combine: how the residual is taken in, "add" or "mul".
        algorithm: how the sum is computed. "direct", or for a 3x3 kernel with stride 1, one group and zeros around
            "winograd_2x2" or "winograd_4x4", Winograd's F(2x2, 3x3) and F(4x4, 3x3): 2.25 and 4 times fewer
            products, other rounding (`sparseblock.testing.winograd_tolerance`), and a NaN or infinity in x reaches up
            to 2 or 4 times the dilation further; it pays where a block holds several times the dilation. For bfloat16
            maps "bf16_pairs", on processors with AVX512-BF16, of an even number of input channels in a group, and
            "bf16_amx", on those with AMX-BF16, of one group or groups of more than one: weights are rounded to
            bfloat16, sums are float32. For float32 maps on the cuda backend, "tf32": both factors are
            rounded to 10 bits behind the point, sums are float32. The reference backend takes all for the direct sum.

    Returns:
        `out`.

    Raises:
        SparseBlockError: shapes, dtypes, devices, layouts, algorithm or block grid
            do not fit; the processor lacks the algorithm; memory is shared; or `out` is a leaf that requires grad.

    Example:
        >>> x = torch.randn(1, 3, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.conv2d(x, torch.randn(8, 3, 3, 3), None, blocks, out, padding=1, activation="relu").shape
        torch.Size([1, 8, 30, 40])
    """
    op = "conv2d"
    planes = {"x": x} if residual is None else {"x": x, "residual": residual}
    _check.planes(op, out, **planes)
    _check.strided(op, "weight", weight)
    _check.tensors(op, out, x=x, residual=residual)
    _check.parameters(op, out, weight=weight, bias=bias)
    stride, sides = _check.pair(op, "stride", stride, 1), _check.sides(op, padding)
    dilation = _check.pair(op, "dilation", dilation, 1)
    if weight.dim() != 4 or min(weight.shape) < 1:
        raise SparseBlockError(f"{op}: weight is {list(weight.shape)}; it must be [k, c / groups, r, s], none empty")
    k, per_group, *kernel = weight.shape
    if not _check.divides(groups, k):
        raise SparseBlockError(
            f"{op}: groups is {_check.shown(groups)} for {k} output channels; "
            "it must be a positive divisor of weight.shape[0]"
        )
    if per_group * groups != x.shape[1]:
        raise SparseBlockError(
            f"{op}: weight has {per_group} input channels but x has {x.shape[1]} "
            f"(x: {_check.shape(x)}, groups={groups}); weight.shape[1]*groups must equal c"
        )
    _check.padding_mode(op, padding_mode, sides, x, ("zeros", "reflect", "replicate", "circular"))
    _check.algorithm(op, algorithm, kernel, stride, groups, per_group, x.dtype, padding_mode)
    padded = [size + sum(around) for size, around in zip(x.shape[2:], sides, strict=True)]
    extent = [conv_extent(*sizes, 0, d) for *sizes, d in zip(padded, kernel, stride, dilation, strict=True)]
    if min(extent) < 1:
        raise SparseBlockError(
            f"{op}: a kernel of {kernel[0]}x{kernel[1]} (dilation {dilation}) does not fit into x {_check.shape(x)} "
            f"with padding {_check.described(sides)}; pad more or pass a larger x"
        )
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
    _conv2d(
        x, weight, bias, blocks.index, blocks.count, blocks.block, out,
        stride, [before for before, _ in sides], dilation, groups,
        *fused, residual, combine, padding_mode, algorithm,
    )  # fmt: skip
    return out
