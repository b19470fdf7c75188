"""Which ATen operators have a block-sparse form, and what they become. One rule per operator, whatever its overload.

A rule gets the lowering and the operator's arguments by name, and returns what stands for the result: a `Ref`, or a
tuple of them. Where a rule does not cover its arguments it raises `Unsupported` with the reason that the report will
give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from sparseblock.plan.ir import Concat, Conv2d, Interpolate, Pair, Pointwise, Pool2d, Ref, Slice, Value

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering

RULES: dict[str, Callable[[_Lowering, SimpleNamespace], Any]] = {}


class Unsupported(Exception):
    """This rule does not cover these arguments; the message says why."""


def rule(*names: str) -> Callable:
    def register(function: Callable) -> Callable:
        for name in names:
            RULES[name] = function
        return function

    return register


@rule("conv2d", "convolution", "conv_transpose2d")
def conv(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if not isinstance(a.weight, torch.Tensor) or isinstance(a.bias, Ref):
        raise Unsupported("its weight is computed from the frame")
    transposed = a.transposed if hasattr(a, "transposed") else hasattr(a, "output_padding")
    dilation, kernel, stride = _pair(a.dilation), tuple(a.weight.shape[2:]), _pair(a.stride)
    op = Conv2d(a.weight, a.bias, stride, _padding(a.padding, kernel, dilation), dilation, a.groups, transposed)
    return lower.emit(op, [a.input])


@rule("max_pool2d")
def max_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    kernel = _pair(a.kernel_size)
    op = Pool2d("max", kernel, _pair(a.stride) if a.stride else kernel, _pair(a.padding), _pair(a.dilation))
    return lower.emit(op, [a.input])


@rule("avg_pool2d")
def avg_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if a.divisor_override is not None and a.divisor_override <= 0:
        raise Unsupported(f"no block-sparse rule for an average divided by {a.divisor_override}")
    kernel = _pair(a.kernel_size)
    stride = _pair(a.stride) if a.stride else kernel
    op = Pool2d("avg", kernel, stride, _pair(a.padding), (1, 1), a.count_include_pad, a.divisor_override or 0)
    return lower.emit(op, [a.input])


@rule("adaptive_avg_pool2d")
def adaptive_avg_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    _, _, h, w = lower.value(a.input).shape
    rows, cols = _pair(a.output_size)
    if h % rows or w % cols:
        raise Unsupported(f"windows of unequal size: {h}x{w} pixels averaged to {rows}x{cols}")
    window = (h // rows, w // cols)
    return lower.emit(Pool2d("avg", window, window, (0, 0)), [a.input])


@rule("upsample_bilinear2d", "upsample_nearest2d")
def interpolate(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    align = getattr(a, "align_corners", None)
    factors = a.scale_factors if hasattr(a, "scale_factors") else [a.scales_h, a.scales_w]
    if factors is not None and None in factors:
        factors = None
    mode = "nearest" if align is None else "bilinear"
    return lower.emit(Interpolate(mode, bool(align), None if factors is None else tuple(factors)), [a.input])


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


@rule("add", "sub")
def add(lower: _Lowering, a: SimpleNamespace) -> Ref:
    x, other = a.input, a.other
    sign = a.alpha if lower.current.target._schema.name.rstrip("_") == "aten::add" else -a.alpha
    if isinstance(x, Ref) and isinstance(other, Ref):
        first, second = lower.value(x), lower.value(other)
        if first.shape != second.shape:
            raise Unsupported(f"adds maps of two shapes, {list(first.shape[1:])} and {list(second.shape[1:])}")
        if sign != 1:
            other = lower.emit(Pointwise(), [other], scale=_filled(second, sign))
        return lower.emit(Pointwise(), [x, other])
    if isinstance(x, Ref):
        shift = _per_channel(other, lower.value(x)) * sign
        return lower.emit(Pointwise(), [x], shift=shift)
    value = lower.value(other)
    return lower.emit(Pointwise(), [other], scale=_filled(value, sign), shift=_per_channel(x, value))


@rule("mul")
def mul(lower: _Lowering, a: SimpleNamespace) -> Ref:
    x, other = (a.input, a.other) if isinstance(a.input, Ref) else (a.other, a.input)
    if isinstance(other, Ref):
        raise Unsupported("no block-sparse rule for the product of two maps")
    return lower.emit(Pointwise(), [x], scale=_per_channel(other, lower.value(x)))


@rule("div")
def div(lower: _Lowering, a: SimpleNamespace) -> Ref:
    if not isinstance(a.input, Ref) or isinstance(a.other, Ref) or getattr(a, "rounding_mode", None) is not None:
        raise Unsupported("no block-sparse rule for a division by a map or with rounding")
    divisor = _per_channel(a.other, lower.value(a.input))
    return lower.emit(Pointwise(), [a.input], scale=(1.0 / divisor.double()).float())


@rule("neg")
def neg(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return lower.emit(Pointwise(), [a.input], scale=_filled(lower.value(a.input), -1.0))


@rule("relu")
def relu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Pointwise(), [a.input], activation="relu")


@rule("relu6")
def relu6(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Pointwise(), [a.input], activation="relu6")


@rule("hardtanh", "clamp", "clamp_min")
def clamp(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    bounds = (a.min_val, a.max_val) if hasattr(a, "min_val") else (a.min, getattr(a, "max", None))
    activation = {(0, None): "relu", (0, 6): "relu6"}.get(bounds if not _tensors(bounds) else None)
    if activation is None:
        raise Unsupported(f"no block-sparse rule for a clamp to {bounds}")
    return lower.emit(Pointwise(), [a.input], activation=activation)


@rule("leaky_relu")
def leaky_relu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    slope = _filled(lower.value(a.input), a.negative_slope)
    return lower.emit(Pointwise(), [a.input], activation="prelu", slope=slope)


@rule("prelu")
def prelu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value = lower.value(a.input)
    if not isinstance(a.weight, torch.Tensor):
        raise Unsupported("its slope is computed from the frame")
    slope = a.weight.float().flatten().expand(value.shape[1]).contiguous()
    return lower.emit(Pointwise(), [a.input], activation="prelu", slope=slope)


@rule("cat", "concat")
def cat(lower: _Lowering, a: SimpleNamespace) -> Ref:
    values = [lower.value(ref, "one of its inputs") for ref in a.tensors]
    if a.dim not in (1, -3):
        raise Unsupported(f"joins maps along axis {a.dim}, not along the channels")
    return a.tensors[0] if len(values) == 1 else lower.emit(Concat(), list(a.tensors))


@rule("slice")
def slice_channels(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value, result = lower.value(a.input), lower.current.meta["val"]
    if tuple(result.shape) == value.shape:
        return a.input
    _not_empty(result)
    if a.dim not in (1, -3) or a.step != 1:
        raise Unsupported(f"no block-sparse rule for a slice along axis {a.dim} in steps of {a.step}")
    start = a.start or 0
    return lower.emit(Slice(start if start >= 0 else max(start + value.shape[1], 0)), [a.input])


@rule("narrow")
def narrow(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value = lower.value(a.input)
    if a.dim not in (1, -3) or isinstance(a.start, (Ref, torch.Tensor)):
        raise Unsupported(f"no block-sparse rule for a slice along axis {a.dim}")
    _not_empty(lower.current.meta["val"])
    return lower.emit(Slice(a.start if a.start >= 0 else a.start + value.shape[1]), [a.input])


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def split(lower: _Lowering, a: SimpleNamespace) -> tuple[Ref, ...]:
    lower.value(a.input)
    if a.dim not in (1, -3):
        raise Unsupported(f"splits a map along axis {a.dim}, not along the channels")
    for part in lower.current.meta["val"]:
        _not_empty(part)
    parts, start = [], 0
    for part in lower.current.meta["val"]:
        parts.append(lower.emit(Slice(start), [a.input], tuple(part.shape)))
        start += part.shape[1]
    return tuple(parts)


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(lower: _Lowering, a: SimpleNamespace) -> Any:
    if a.train:
        raise Unsupported("it drops at random: part of the network is in training mode")
    return a.input


@rule(
    "contiguous", "clone", "alias", "detach", "lift_fresh_copy", "to", "view", "reshape", "flatten", "expand", "type_as"
)
def identity(lower: _Lowering, a: SimpleNamespace) -> Any:
    value, result = lower.value(a.input), lower.current.meta["val"]
    if (tuple(result.shape), result.dtype) != (value.shape, value.dtype):
        raise Unsupported(f"changes the shape or type of a map, {list(value.shape)} to {list(result.shape)}")
    return a.input


def _not_empty(part: torch.Tensor) -> None:
    if not part.numel():
        raise Unsupported("takes no channel of a map")


def _pair(value: int | Sequence[int]) -> Pair:
    sides = (value,) if isinstance(value, int) else tuple(value)
    return sides if len(sides) == 2 else (sides[0], sides[0])


def _padding(padding: str | int | Sequence[int], kernel: Pair, dilation: Pair) -> Pair:
    if padding == "valid":
        return (0, 0)
    if padding != "same":
        return _pair(padding)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(side % 2 for side in total):
        raise Unsupported(f"'same' padding of a kernel of {kernel[0]}x{kernel[1]} is not equal on both sides")
    return (total[0] // 2, total[1] // 2)


def _filled(value: Value, number: float) -> torch.Tensor:
    return torch.full((value.shape[1],), float(number))


def _per_channel(constant: Any, value: Value) -> torch.Tensor:
    """`constant` as float32 [c], where it broadcasts over the frame of `value`."""
    tensor = torch.as_tensor(constant, dtype=torch.float32)
    channels = value.shape[1]
    shape = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
    if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, channels) or shape[2:] != (1, 1):
        raise Unsupported(f"a constant of shape {list(tensor.shape)} varies over the frame or widens it")
    return tensor.reshape(-1).expand(channels).contiguous()


def _tensors(items: Sequence[Any]) -> bool:
    return any(isinstance(item, (Ref, torch.Tensor)) for item in items)
