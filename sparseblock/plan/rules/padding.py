"""Pixels around a map."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from sparseblock.plan.ir import Pad, Ref
from sparseblock.plan.rules._base import Unsupported, rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("pad")
def pad(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return _pad(lower, a.input, a.pad, a.mode, a.value or 0.0)


@rule("constant_pad_nd")
def constant_pad(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return _pad(lower, a.input, a.pad, "constant", a.value)


@rule("reflection_pad2d")
def reflection_pad(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return _pad(lower, a.input, a.padding, "reflect", 0.0)


@rule("replication_pad2d")
def replication_pad(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return _pad(lower, a.input, a.padding, "replicate", 0.0)


def _pad(lower: _Lowering, x: Ref, sides: list[int], mode: str, value: float) -> Ref:
    lower.value(x)
    left, right, top, bottom, *more = [*sides, *[0] * (4 - len(sides))]
    if any(more):
        raise Unsupported(f"pads along other axes than rows and columns: {list(sides)}")
    if not any(sides):
        return x
    if mode != "constant" and min(sides) < 0:
        raise Unsupported(f"no block-sparse rule for a padding of {list(sides)} with mode {mode!r}")
    return lower.emit(Pad(mode, ((top, bottom), (left, right)), float(value)), [x])
