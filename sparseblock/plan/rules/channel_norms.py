"""What brings the channels of a pixel to one scale, and the permutations that networks write around it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import ChannelNorm, Conv2d, Pointwise, Ref, Torch
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


def unit_variance(lower: _Lowering, x: object, divisor: object) -> Ref | None:
    """x / divisor, where that is a layer norm by hand: (v - mean) / sqrt(mean of (v - mean)^2 + eps)."""
    source, root = _centered(lower, x), lower.producer(divisor)
    if source is None or root is None or not isinstance(root.op, Torch) or root.op.target != _aten.sqrt.default:
        return None
    variance = lower.pointwise(root.op.args[0])
    if variance is None or len(variance.inputs) != 1 or variance.epilogue.shift is None:
        return None
    square = lower.pointwise(_mean_of(lower, Ref(variance.inputs[0])))
    e = variance.epilogue
    if square is None or e.scale is not None or e.activation is not None or square.epilogue.combine != "mul":
        return None
    if any(_centered(lower, Ref(name)) != source for name in square.inputs):
        return None
    return lower.emit(ChannelNorm("layer_norm", float(e.shift[0])), [source])


def channel_mean(lower: _Lowering, x: Ref) -> Ref:
    """A 1x1 convolution."""
    channels = lower.value(x).shape[1]
    return lower.emit(Conv2d(torch.full((1, channels, 1, 1), 1 / channels), None, (1, 1), (0, 0), (1, 1), 1), [x])


def _mean_of(lower: _Lowering, mean: object) -> Ref | None:
    """The map that `mean` is the `channel_mean` of."""
    node = lower.producer(mean)
    if node is None or not isinstance(node.op, Conv2d) or node.op.weight.shape[0] != 1:
        return None
    weight = node.op.weight
    plain = weight.shape[2:] == (1, 1) and node.op.bias is None and bool((weight == 1 / weight.shape[1]).all())
    return Ref(node.inputs[0]) if plain and node.op.stride == (1, 1) else None


def _centered(lower: _Lowering, difference: object) -> Ref | None:
    """The map that `difference` is, less its mean over the channels."""
    node = lower.pointwise(difference)
    if node is None or len(node.inputs) != 2 or node.epilogue.combine != "add" or node.epilogue.is_affine:
        return None
    x, negative = Ref(node.inputs[0]), lower.pointwise(Ref(node.inputs[1]))
    if negative is None or len(negative.inputs) != 1 or negative.epilogue.scale is None:
        return None
    e = negative.epilogue
    if e.shift is not None or e.activation is not None or bool((e.scale != -1).any()):
        return None
    return x if _mean_of(lower, Ref(negative.inputs[0])) == x else None


def _along_channels(lower: _Lowering, axes: object) -> bool:
    """Whether these axes of the operator's result are that of the channels."""
    result = lower.current.meta["val"]
    return [axis % result.dim() for axis in axes] == [3 if lower.last else 1]
