"""Pooling over windows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from sparseblock.plan.ir import GlobalPool, Pool2d, Ref
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
    size = lower.value(a.input).shape[2:]
    if a.divisor_override is not None and a.divisor_override <= 0:
        raise Unsupported(f"no block-sparse rule for an average divided by {a.divisor_override}")
    kernel = pair(a.kernel_size)
    whole = all(k >= side for k, side in zip(kernel, size, strict=True))
    if whole and pair(a.padding) == (0, 0) and a.divisor_override is None:
        return lower.emit(GlobalPool("avg", size), [a.input])
    stride = pair(a.stride) if a.stride else kernel
    op = Pool2d("avg", kernel, stride, pair(a.padding), (1, 1), a.count_include_pad, a.divisor_override or 0)
    return lower.emit(op, [a.input])


@rule("adaptive_avg_pool2d")
def adaptive_avg_pool2d(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return _adaptive(lower, a, "avg")


@rule("adaptive_max_pool2d")
def adaptive_max_pool2d(lower: _Lowering, a: SimpleNamespace) -> tuple[Ref]:
    if any(user.args[1] != 0 and user.users for user in lower.current.users):
        raise Unsupported("no block-sparse rule for the places of maxima")
    return (_adaptive(lower, a, "max"), None)


def _adaptive(lower: _Lowering, a: SimpleNamespace, kind: str) -> Ref:
    """Global, an ordinary pool where the windows are of one size and lie side by side, or adaptive windows."""
    value = lower.value(a.input)
    sides = zip(pair(a.output_size), value.shape[2:], strict=True)
    size, out = value.shape[2:], tuple(given or side for given, side in sides)  # None: as large as the input
    shape = (*value.shape[:2], *out)
    if out == (1, 1):
        return lower.emit(GlobalPool(kind, size), [a.input], shape)
    window = tuple(-(-side // cells) for side, cells in zip(size, out, strict=True))
    adaptive = any(side % cells for side, cells in zip(size, out, strict=True))
    return lower.emit(Pool2d(kind, window, window, (0, 0), adaptive=adaptive), [a.input], shape)
