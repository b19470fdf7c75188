"""What brings the channels of a pixel to one scale, and the permutations that networks write around it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import ChannelNorm, Pointwise, Ref, Torch
from sparseblock.plan.rules._base import Unsupported, rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering

_aten = torch.ops.aten


@rule("permute")
def permute(lower: _Lowering, a: SimpleNamespace) -> Ref:
    """A map with its channels last and back."""
    order = [axis % 4 for axis in a.dims]
    if order == [0, 3, 1, 2] and a.input.name in lower.channels_last:
        return lower.channels_last[a.input.name]
    if order != [0, 2, 3, 1]:
        raise Unsupported(f"no block-sparse rule for {lower.current.target}")
    lower.value(a.input)
    return lower.with_channels_last(a.input)


@rule("softmax", "_softmax")
def softmax(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if not _along_channels(lower, [a.dim]):
        raise Unsupported(f"no block-sparse rule for a softmax along axis {a.dim}")
    return lower.emit(ChannelNorm("softmax", 0.0), [a.input])


@rule("layer_norm")
def layer_norm(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if not _along_channels(lower, range(-len(a.normalized_shape), 0)):
        raise Unsupported("no block-sparse rule for a layer norm along other axes than the channels")
    if any(isinstance(v, Ref) for v in (a.weight, a.bias)):
        raise Unsupported("its weight is computed from the frame")
    return lower.emit(ChannelNorm("layer_norm", a.eps), [a.input], scale=a.weight, shift=a.bias)


def unit_length(lower: _Lowering, x: object, divisor: object) -> Ref | None:
    """x / divisor, where that is the L2 norm of x over the channels: torch.nn.functional.normalize, or by hand."""
    node, eps = lower.producer(divisor), 0.0
    if node is not None and isinstance(node.op, Torch) and node.op.target == _aten.expand_as.default:
        node = lower.producer(node.op.args[0])
    if node is not None and isinstance(node.op, Pointwise) and len(node.inputs) == 1:
        e = node.epilogue
        if e.is_affine or e.activation != "clamp" or e.bounds[0] < 0 or e.bounds[1] != math.inf:
            return None
        node, eps = lower.producer(Ref(node.inputs[0])), e.bounds[0]
    if node is None or not isinstance(node.op, Torch) or node.op.target != _aten.linalg_vector_norm.default:
        return None
    source, order, axes, kept = (*node.op.args, 2, None, False)[:4]
    if source != x or order != 2 or axes is None or [axis % 4 for axis in axes] != [1] or not kept:
        return None
    return lower.emit(ChannelNorm("normalize", eps), [x])


def _along_channels(lower: _Lowering, axes: object) -> bool:
    """Whether these axes of the operator's result are that of the channels."""
    result = lower.current.meta["val"]
    return [axis % result.dim() for axis in axes] == [3 if lower.last else 1]
