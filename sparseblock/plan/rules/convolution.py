"""Convolutions, and batch norm, which is an affine map that goes into their weights."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import Conv2d, Pair, Pointwise, Ref
from sparseblock.plan.rules._base import Unsupported, pair, rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("conv2d", "convolution", "conv_transpose2d")
def conv(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if not isinstance(a.weight, torch.Tensor) or isinstance(a.bias, Ref):
        raise Unsupported("its weight is computed from the frame")
    transposed = a.transposed if hasattr(a, "transposed") else hasattr(a, "output_padding")
    dilation, kernel, stride = pair(a.dilation), tuple(a.weight.shape[2:]), pair(a.stride)
    op = Conv2d(a.weight, a.bias, stride, _padding(a.padding, kernel, dilation), dilation, a.groups, transposed)
    return lower.emit(op, [a.input])


@rule("linear")
def linear(lower: _Lowering, a: SimpleNamespace) -> Ref:
    """A 1x1 convolution: of a map with its channels last, or, on a vector [1, c], of a map of one pixel."""
    value = lower.value(a.input)
    if not lower.last and (value.shape[2:] != (1, 1) or lower.current.meta["val"].dim() != 2):
        raise Unsupported("no block-sparse rule for a linear layer along another axis than the channels")
    if not isinstance(a.weight, torch.Tensor) or isinstance(a.bias, Ref):
        raise Unsupported("its weight is computed from the frame")
    return lower.emit(Conv2d(a.weight[:, :, None, None], a.bias, (1, 1), (0, 0), (1, 1), 1), [a.input])


@rule("batch_norm")
def batch_norm(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    statistics = (a.running_mean, a.running_var)
    if a.training or not all(isinstance(v, torch.Tensor) for v in statistics):
        raise Unsupported("its statistics are those of the whole frame")
    if any(isinstance(v, Ref) for v in (a.weight, a.bias)):
        raise Unsupported("its weight is computed from the frame")
    mean, variance = (v.double() for v in statistics)
    scale = (variance + a.eps).rsqrt()
    if a.weight is not None:
        scale = scale * a.weight.double()
    shift = -mean * scale if a.bias is None else a.bias.double() - mean * scale
    return lower.emit(Pointwise(), [a.input], scale=scale.float(), shift=shift.float())


def _padding(padding: str | int | Sequence[int], kernel: Pair, dilation: Pair) -> Pair:
    if padding == "valid":
        return (0, 0)
    if padding != "same":
        return pair(padding)
    vertical, horizontal = (d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return (vertical, horizontal)  # where the whole is odd, one more below and on the right
