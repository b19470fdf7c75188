"""Interpolation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from sparseblock.plan.ir import Interpolate, Ref
from sparseblock.plan.rules._base import rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("upsample_bilinear2d", "upsample_nearest2d")
def interpolate(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    align = getattr(a, "align_corners", None)
    factors = a.scale_factors if hasattr(a, "scale_factors") else [a.scales_h, a.scales_w]
    if factors is not None and None in factors:
        factors = None
    mode = "nearest" if align is None else "bilinear"
    return lower.emit(Interpolate(mode, bool(align), None if factors is None else tuple(factors)), [a.input])
