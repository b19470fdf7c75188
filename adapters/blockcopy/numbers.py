"""Single numbers and flags: Python's on the host; tensors [] on a device, which nobody waits for.

What the policy keeps and decides is written once, in arithmetic that both have, and with the functions here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

UNKNOWN = math.nan
"""A running mean that has not seen anything. Alone among numbers it is not equal to itself."""

Number = Any  # float or bool, or a tensor []


class Numbers:
    """Those of the host.

    The CPU's policy computes with Python's numbers because there an operator of torch takes many times as long
    (docs/design/0012-policy-time.md).
    """

    def of(self, value: float) -> Number:
        """A number that is known beforehand."""
        return value

    def flag(self, value: bool) -> Number:
        """A flag that is known beforehand."""
        return value

    def listed(self, values: Any) -> Any:
        """A list of numbers that is known beforehand."""
        return values

    def where(self, condition: Number, x: Any, y: Any) -> Any:
        """x or y, numbers or tensors."""
        return x if condition else y

    def negated(self, flag: Number) -> Number:
        return not flag

    def unless(self, flag: Number, other: Number) -> Number:
        """flag and not other."""
        return flag and not other

    def ratio(self, x: Number, y: Number) -> Number:
        """x / y where y is positive, else 0."""
        positive = y > 0
        return self.where(positive, x / self.where(positive, y, self.of(1.0)), self.of(0.0))

    def clamp(self, x: Number, low: float, high: float) -> Number:
        return min(max(x, low), high)

    def sqrt(self, x: Number) -> Number:
        return math.sqrt(x)

    def sigmoid(self, x: Number) -> Number:
        return 1 / (1 + math.exp(-x))

    def each(self, function: Callable[..., Number], *lists: Any) -> Any:
        """A list of numbers from the function of those of other lists; on a device lists are tensors [n]."""
        return [function(*numbers) for numbers in zip(*lists, strict=True)]

    def total(self, function: Callable[..., Number], *maps: torch.Tensor) -> Number:
        """The sum over all places of the function of what maps of one size hold there.

        In plain numbers: there are as many places as blocks, and an operator of torch would take longer than the sum.
        """
        return math.fsum(function(*values) for values in zip(*(x.flatten().tolist() for x in maps), strict=True))


class DeviceNumbers(Numbers):
    """Those of a device: tensors [], of float64 as Python's are."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._known: dict[tuple[float, torch.dtype], Number] = {}  # nobody writes into them

    def of(self, value: float) -> Number:
        return self._constant(value, torch.float64)

    def flag(self, value: bool) -> Number:
        return self._constant(value, torch.bool)

    def _constant(self, value: float, dtype: torch.dtype) -> Number:
        if (value, dtype) not in self._known:
            self._known[value, dtype] = torch.full((), value, dtype=dtype, device=self.device)
        return self._known[value, dtype]

    def listed(self, values: Any) -> Any:
        return torch.as_tensor(values, dtype=torch.float64, device=self.device)

    def where(self, condition: Number, x: Any, y: Any) -> Any:
        return torch.where(condition, x, y)

    def negated(self, flag: Number) -> Number:
        return ~flag

    def unless(self, flag: Number, other: Number) -> Number:
        return flag > other  # one operator

    def ratio(self, x: Number, y: Number) -> Number:
        return self.where(y > 0, x / y, self.of(0.0))

    def clamp(self, x: Number, low: float, high: float) -> Number:
        return x.clamp(low, high)

    def sqrt(self, x: Number) -> Number:
        return x.sqrt()

    def sigmoid(self, x: Number) -> Number:
        return x.sigmoid()

    def each(self, function: Callable[..., Number], *lists: Any) -> Any:
        return function(*lists)

    def total(self, function: Callable[..., Number], *maps: torch.Tensor) -> Number:
        return function(*maps).sum(dtype=torch.float64)


HOST = Numbers()


def known(x: Number) -> Number:
    """Whether x is a number."""
    return x == x


def plain(x: Number) -> float | None:
    """x as a number of Python's, for a file: waits for the device. None where it is unknown."""
    value = float(x)
    return None if math.isnan(value) else value
