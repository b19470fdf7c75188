"""Activation functions."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import Pointwise, Ref
from sparseblock.plan.rules._base import Unsupported, filled, rule, tensors

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("relu", "sigmoid", "tanh", "silu", "mish", "hardsigmoid", "hardswish")
def by_name(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    name = lower.current.target._schema.name.removeprefix("aten::").rstrip("_")
    return lower.emit(Pointwise(), [a.input], activation=name)


@rule("gelu")
def gelu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Pointwise(), [a.input], activation="gelu_tanh" if a.approximate == "tanh" else "gelu")


@rule("relu6")
def relu6(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Pointwise(), [a.input], activation="clamp", bounds=(0.0, 6.0))


@rule("hardtanh", "clamp", "clamp_min", "clamp_max", "clip")
def clamp(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    bounds = (a.min_val, a.max_val) if hasattr(a, "min_val") else (getattr(a, "min", None), getattr(a, "max", None))
    if tensors(bounds):
        raise Unsupported("no block-sparse rule for a clamp to another map")
    low, high = (default if bound is None else float(bound) for bound, default in zip(bounds, _LINE, strict=True))
    if math.isnan(low) or math.isnan(high):
        raise Unsupported("clamps to NaN")
    if (low, high) == (0, math.inf):
        return lower.emit(Pointwise(), [a.input], activation="relu")
    return lower.emit(Pointwise(), [a.input], activation="clamp", bounds=(low, high))


@rule("leaky_relu")
def leaky_relu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    slope = filled(lower.value(a.input), a.negative_slope)
    return lower.emit(Pointwise(), [a.input], activation="prelu", slope=slope)


@rule("prelu")
def prelu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value = lower.value(a.input)
    if not isinstance(a.weight, torch.Tensor):
        raise Unsupported("its slope is computed from the frame")
    slope = a.weight.float().flatten().expand(value.shape[1]).contiguous()
    return lower.emit(Pointwise(), [a.input], activation="prelu", slope=slope)


@rule("abs")
def absolute(lower: _Lowering, a: SimpleNamespace) -> Ref:
    slope = filled(lower.value(a.input), -1.0)
    return lower.emit(Pointwise(), [a.input], activation="prelu", slope=slope)


@rule("elu")
def elu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    if a.input_scale != 1:
        raise Unsupported(f"no block-sparse rule for an ELU of {a.input_scale} times its input")
    return _scaled_elu(lower, a.input, a.alpha, 1.0, a.scale)


@rule("selu")
def selu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    # Klambauer et al., Self-Normalizing Neural Networks (NIPS 2017), as in torch.nn.SELU.
    return _scaled_elu(lower, a.input, 1.6732632423543772, 1.0, 1.0507009873554805)


@rule("celu")
def celu(lower: _Lowering, a: SimpleNamespace) -> Ref:
    """max(x, 0) + min(alpha (e^(x / alpha) - 1), 0), alpha times an ELU of x / alpha."""
    return _scaled_elu(lower, a.input, 1.0, 1.0 / a.alpha, a.alpha)


@rule("softplus")
def softplus(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value = lower.value(a.input)
    if a.threshold < 17:  # from there on log(1 + e^v) rounds to v
        raise Unsupported(f"no block-sparse rule for a softplus that is the identity from {a.threshold} on")
    x = _scaled(lower, a.input, a.beta)
    return _scaled(lower, lower.emit(Pointwise(), [x], value.shape, activation="softplus"), 1.0 / a.beta)


_LINE = (-math.inf, math.inf)


def _scaled_elu(lower: _Lowering, x: Ref, alpha: float, before: float, after: float) -> Ref:
    value = lower.value(x)
    slope = filled(value, alpha)
    x = _scaled(lower, x, before)
    return _scaled(lower, lower.emit(Pointwise(), [x], value.shape, activation="elu", slope=slope), after)


def _scaled(lower: _Lowering, x: Ref, factor: float) -> Ref:
    value = lower.value(x)
    return x if factor == 1 else lower.emit(Pointwise(), [x], value.shape, scale=filled(value, factor))
