"""Pointwise work moved into the node before it: batch norm into weights; add, affine, activation into the epilogue."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparseblock.plan.ir import ChannelNorm, Conv2d, Epilogue, GroupNorm, Node, Pointwise


def absorb(producer: Node, pointwise: Node) -> Node | None:
    """One node that does what `pointwise` does after `producer`, or None where no node can.

    A node computes activation((sum + residual) * scale + shift), each part once and in this order, or the product with
    the residual instead of the sum; what comes later cannot be followed by what comes earlier. An affine map right
    after a convolution goes into its weights instead.
    """
    op, before, after = producer.op, producer.epilogue, pointwise.epilogue
    is_norm = isinstance(op, GroupNorm) or (isinstance(op, ChannelNorm) and op.kind == "layer_norm")
    if not (is_norm or isinstance(op, (Conv2d, Pointwise))) or not isinstance(pointwise.op, Pointwise):
        return None
    if before.is_affine and after.is_affine and not (_is_finite(before) and _is_finite(after)):
        return None
    inputs = producer.inputs
    if before.activation is not None and (pointwise.residual or after.is_affine or after.activation is not None):
        return None
    if pointwise.residual is not None:
        others = [name for name in pointwise.inputs if name != producer.output]
        if producer.gated or producer.residual is not None or before.is_affine or len(others) != 1:
            return None
        if is_norm:
            return None
        inputs = (inputs[0], others[0])
    elif (
        isinstance(op, Conv2d)
        and producer.residual is None
        and not before.is_affine
        and after.is_affine
        and _is_finite(after)
    ):
        op, after = _fold(op, after), replace(after, scale=None, shift=None)
    scale, shift = _compose(before, after)
    active = after if after.activation is not None else before
    combine = after.combine if pointwise.residual is not None else before.combine
    epilogue = Epilogue(scale, shift, active.activation, active.slope, active.bounds, combine)
    origin = producer.origin or pointwise.origin
    return Node(op, inputs, pointwise.output, epilogue, origin, producer.gated)


def _compose(first: Epilogue, second: Epilogue) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Scale and shift of v -> (v * first.scale + first.shift) * second.scale + second.shift."""
    if not second.is_affine:
        return first.scale, first.shift
    if not first.is_affine:
        return second.scale, second.shift
    scale = _product(first.scale, second.scale)
    shift = _product(first.shift, second.scale) if first.shift is not None else None
    if second.shift is not None:
        shift = second.shift if shift is None else shift + second.shift
    return scale, shift


def _product(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return a if b is None else b if a is None else (a.double() * b.double()).float()


def _is_finite(affine: Epilogue) -> bool:
    """Whether it can be moved into weights or another affine map; infinity would make NaN of their sums and zeros."""
    return all(part is None or bool(part.isfinite().all()) for part in (affine.scale, affine.shift))


def _fold(conv: Conv2d, affine: Epilogue) -> Conv2d:
    """The convolution followed by the affine map, in double precision and rounded once."""
    weight, bias = conv.weight, conv.bias
    if affine.scale is not None:
        scale = affine.scale.double()
        if conv.transposed:  # [c, k / groups, r, s]: the rows of a group all reach its k / groups channels
            rows = scale.reshape(conv.groups, 1, -1).expand(-1, weight.shape[0] // conv.groups, -1)
            weight = (weight.double() * rows.reshape(weight.shape[0], -1, 1, 1)).float()
        else:
            weight = (weight.double() * scale.reshape(-1, 1, 1, 1)).float()
        bias = None if bias is None else (bias.double() * scale).float()
    if affine.shift is not None:
        bias = affine.shift if bias is None else bias + affine.shift
    return replace(conv, weight=weight, bias=bias)
