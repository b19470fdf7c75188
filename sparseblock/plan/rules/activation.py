"""Activation functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import Pointwise, Ref
from sparseblock.plan.rules._base import Unsupported, filled, rule, tensors

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


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
    activation = {(0, None): "relu", (0, 6): "relu6"}.get(bounds if not tensors(bounds) else None)
    if activation is None:
        raise Unsupported(f"no block-sparse rule for a clamp to {bounds}")
    return lower.emit(Pointwise(), [a.input], activation=activation)


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
