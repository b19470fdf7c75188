"""Operators that give the map they get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sparseblock.plan.ir import Interpolate
from sparseblock.plan.rules._base import Unsupported, rule
from sparseblock.plan.rules.shuffle import viewed_channel_shuffle

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(lower: _Lowering, a: SimpleNamespace) -> Any:
    if a.train:
        raise Unsupported("it drops at random: part of the network is in training mode")
    return a.input


@rule(
    *("contiguous", "clone", "alias", "detach", "lift_fresh_copy", "to", "view", "reshape", "flatten", "type_as"),
    *("view_as", "reshape_as", "expand", "expand_as", "squeeze", "unsqueeze"),
)
def identity(lower: _Lowering, a: SimpleNamespace) -> Any:
    result = lower.result
    shuffled = viewed_channel_shuffle(lower, a.input, tuple(result.shape))
    if shuffled is not None:
        return shuffled
    value = lower.value(a.input)
    if value.shape[2:] == (1, 1) and tuple(result.shape[:2]) == value.shape[:2]:
        if result.numel() == value.shape[1]:
            return a.input  # a map of one pixel as a vector, or a vector as a map
        if result.dim() == 4:
            return lower.emit(Interpolate("nearest", False, None), [a.input])  # the pixel everywhere
    if (tuple(result.shape), result.dtype) != (value.shape, value.dtype):
        raise Unsupported(f"changes the shape or type of a map, {list(value.shape)} to {list(result.shape)}")
    return a.input
