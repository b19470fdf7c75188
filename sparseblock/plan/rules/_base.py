"""What every file of rules is written with: the table, the refusal, and how arguments are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from sparseblock.plan.ir import Pair, Ref, Value

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering

RULES: dict[str, Callable[[_Lowering, SimpleNamespace], Any]] = {}


class Unsupported(Exception):
    """This rule does not cover these arguments; the message says why."""


def rule(*names: str) -> Callable:
    """The decorated function is the rule of the ATen operators `names`."""

    def register(function: Callable) -> Callable:
        for name in names:
            RULES[name] = function
        return function

    return register


def pair(value: int | Sequence[int]) -> Pair:
    sides = (value,) if isinstance(value, int) else tuple(value)
    return sides if len(sides) == 2 else (sides[0], sides[0])


def filled(value: Value, number: float) -> torch.Tensor:
    return torch.full((value.shape[1],), float(number))


def per_channel(constant: Any, value: Value) -> torch.Tensor:
    """`constant` as float32 [c], where it broadcasts over the frame of `value`."""
    tensor = torch.as_tensor(constant, dtype=torch.float32)
    channels = value.shape[1]
    shape = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
    if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, channels) or shape[2:] != (1, 1):
        raise Unsupported(f"a constant of shape {list(tensor.shape)} varies over the frame or widens it")
    return tensor.reshape(-1).expand(channels).contiguous()


def is_channels(lower: _Lowering, axis: int) -> bool:
    """Whether an axis of the operator's map is that of the channels."""
    return axis % 4 == (3 if lower.last else 1)


def not_empty(part: torch.Tensor) -> None:
    if not part.numel():
        raise Unsupported("takes no channel of a map")


def tensors(items: Sequence[Any]) -> bool:
    return any(isinstance(item, (Ref, torch.Tensor)) for item in items)
