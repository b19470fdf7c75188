"""Statistics of the whole frame: global pools, group and instance norm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import GlobalPool, GroupNorm, Pointwise, Ref
from sparseblock.plan.rules._base import Unsupported, filled, rule
from sparseblock.plan.rules.channel_norms import channel_mean
from sparseblock.plan.rules.convolution import batch_norm

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("mean", "amax")
def global_pool(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value, kind = lower.value(a.input), "avg" if hasattr(a, "dtype") else "max"
    axes = getattr(a, "dim", None) or ()
    if kind == "avg" and [axis % 4 for axis in axes] == [1] and a.keepdim:
        return channel_mean(lower, a.input)
    if sorted(axis % 4 for axis in axes) != [2, 3]:
        raise Unsupported("no block-sparse rule for a mean or maximum along other axes than rows and columns")
    return lower.emit(GlobalPool(kind, value.shape[2:]), [a.input])


@rule("linalg_vector_norm", "norm")
def global_norm(lower: _Lowering, a: SimpleNamespace) -> Ref:
    """The root of the sum of squares, as global response normalization takes it; one root per channel stays torch's."""
    value, order = lower.value(a.input), getattr(a, "ord", None) or getattr(a, "p", None)
    if order != 2 or not a.keepdim or sorted(axis % 4 for axis in a.dim or ()) != [2, 3]:
        raise Unsupported(f"no block-sparse rule for {lower.current.target} but the L2 norm over rows and columns")
    squares = lower.emit(Pointwise(), [a.input, a.input], value.shape, combine="mul")
    mean = lower.emit(GlobalPool("avg", value.shape[2:]), [squares])
    pixels = value.shape[2] * value.shape[3]
    return lower.call(torch.ops.aten.sqrt.default, lower.emit(Pointwise(), [mean], scale=filled(value, pixels)))


@rule("group_norm")
def group_norm(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return _norm(lower, a, a.num_groups)


@rule("instance_norm")
def instance_norm(lower: _Lowering, a: SimpleNamespace) -> Ref:
    if not a.use_input_stats:
        return batch_norm(lower, SimpleNamespace(**vars(a), training=False))
    return _norm(lower, a, lower.value(a.input).shape[1])


def _norm(lower: _Lowering, a: SimpleNamespace, groups: int) -> Ref:
    channels = lower.value(a.input).shape[1]
    if any(isinstance(v, Ref) for v in (a.weight, a.bias)):
        raise Unsupported("its weight is computed from the frame")
    scale = torch.ones(channels) if a.weight is None else a.weight
    shift = torch.zeros(channels) if a.bias is None else a.bias
    return lower.emit(GroupNorm(groups, a.eps), [a.input], scale=scale, shift=shift)
