"""Sums and products, element by element."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from sparseblock.plan.ir import Pointwise, Ref
from sparseblock.plan.rules._base import Unsupported, filled, per_channel, rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("add", "sub")
def add(lower: _Lowering, a: SimpleNamespace) -> Ref:
    x, other = a.input, a.other
    sign = a.alpha if lower.current.target._schema.name.rstrip("_") == "aten::add" else -a.alpha
    if isinstance(x, Ref) and isinstance(other, Ref):
        first, second = lower.value(x), lower.value(other)
        if first.shape != second.shape:
            raise Unsupported(f"adds maps of two shapes, {list(first.shape[1:])} and {list(second.shape[1:])}")
        if sign != 1:
            other = lower.emit(Pointwise(), [other], scale=filled(second, sign))
        return lower.emit(Pointwise(), [x, other])
    if isinstance(x, Ref):
        shift = per_channel(other, lower.value(x)) * sign
        return lower.emit(Pointwise(), [x], shift=shift)
    value = lower.value(other)
    return lower.emit(Pointwise(), [other], scale=filled(value, sign), shift=per_channel(x, value))


@rule("mul")
def mul(lower: _Lowering, a: SimpleNamespace) -> Ref:
    x, other = (a.input, a.other) if isinstance(a.input, Ref) else (a.other, a.input)
    if isinstance(other, Ref):
        raise Unsupported("no block-sparse rule for the product of two maps")
    return lower.emit(Pointwise(), [x], scale=per_channel(other, lower.value(x)))


@rule("div")
def div(lower: _Lowering, a: SimpleNamespace) -> Ref:
    if not isinstance(a.input, Ref) or isinstance(a.other, Ref) or getattr(a, "rounding_mode", None) is not None:
        raise Unsupported("no block-sparse rule for a division by a map or with rounding")
    divisor = per_channel(a.other, lower.value(a.input))
    return lower.emit(Pointwise(), [a.input], scale=(1.0 / divisor.double()).float())


@rule("neg")
def neg(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return lower.emit(Pointwise(), [a.input], scale=filled(lower.value(a.input), -1.0))
