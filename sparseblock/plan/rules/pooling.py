"""Pooling over windows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from sparseblock.plan.ir import Pool2d, Ref
from sparseblock.plan.rules._base import Unsupported, pair, rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("max_pool2d")
def max_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    kernel = pair(a.kernel_size)
    op = Pool2d("max", kernel, pair(a.stride) if a.stride else kernel, pair(a.padding), pair(a.dilation))
    return lower.emit(op, [a.input])


@rule("avg_pool2d")
def avg_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if a.divisor_override is not None and a.divisor_override <= 0:
        raise Unsupported(f"no block-sparse rule for an average divided by {a.divisor_override}")
    kernel = pair(a.kernel_size)
    stride = pair(a.stride) if a.stride else kernel
    op = Pool2d("avg", kernel, stride, pair(a.padding), (1, 1), a.count_include_pad, a.divisor_override or 0)
    return lower.emit(op, [a.input])


@rule("adaptive_avg_pool2d")
def adaptive_avg_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    _, _, h, w = lower.value(a.input).shape
    rows, cols = pair(a.output_size)
    if h % rows or w % cols:
        raise Unsupported(f"windows of unequal size: {h}x{w} pixels averaged to {rows}x{cols}")
    window = (h // rows, w // cols)
    return lower.emit(Pool2d("avg", window, window, (0, 0)), [a.input])
