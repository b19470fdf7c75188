"""Sums and products, element by element; and activations that networks write out by hand with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from sparseblock.plan.ir import Node, Pointwise, Ref, Torch
from sparseblock.plan.rules._base import Unsupported, filled, per_channel, rule
from sparseblock.plan.rules.channel_norms import unit_length, unit_variance

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("add", "sub")
def add(lower: _Lowering, a: SimpleNamespace) -> Ref:
    x, other = a.input, a.other
    sign = a.alpha if lower.current.target._schema.name.rstrip("_") == "aten::add" else -a.alpha
    if isinstance(x, Ref) and isinstance(other, Ref):
        pair = _matched(lower, x, other, "adds")
        if sign != 1:
            value = lower.value(other)
            scaled = lower.emit(Pointwise(), [other], value.shape, scale=filled(value, sign))
            # Not where the two are one map: x - x has its minuend as it is.
            pair = [x, scaled] if pair[1] == other else [scaled, x]
        return lower.emit(Pointwise(), pair)
    if isinstance(x, Ref):
        shift = per_channel(other, lower.value(x)) * sign
        return lower.emit(Pointwise(), [x], shift=shift)
    value = lower.value(other)
    return lower.emit(Pointwise(), [other], scale=filled(value, sign), shift=per_channel(x, value))


@rule("mul")
def mul(lower: _Lowering, a: SimpleNamespace) -> Ref:
    x, other = (a.input, a.other) if isinstance(a.input, Ref) else (a.other, a.input)
    if not isinstance(other, Ref):
        return _scale(lower, x, per_channel(other, lower.value(x)))
    pair = _matched(lower, x, other, "multiplies")
    for factor, gate in ((x, other), (other, x)):
        gated = _gated(lower, factor, gate)
        if gated is not None:
            return lower.emit(Pointwise(), [factor], activation=gated)
    return lower.emit(Pointwise(), pair, combine="mul")


@rule("addcmul")
def addcmul(lower: _Lowering, a: SimpleNamespace) -> Ref:
    """input + value * tensor1 * tensor2, constants by channel."""
    x, other = (a.tensor1, a.tensor2) if isinstance(a.tensor1, Ref) else (a.tensor2, a.tensor1)
    if not isinstance(x, Ref):
        raise Unsupported("no block-sparse rule for a map plus a product of constants")
    factors = _matched(lower, x, other, "multiplies") if isinstance(other, Ref) else [x]
    value = lower.value(factors[0])
    if value.shape != tuple(lower.result.shape):
        raise Unsupported("adds to each element of a map")
    if isinstance(other, Ref):
        epilogue = {"combine": "mul", "scale": None if a.value == 1 else filled(value, a.value)}
    else:
        epilogue = {"scale": per_channel(other, value) * a.value}
    if not isinstance(a.input, Ref):
        return lower.emit(Pointwise(), factors, shift=per_channel(a.input, value), **epilogue)
    product = lower.emit(Pointwise(), factors, **epilogue)
    return lower.emit(Pointwise(), _matched(lower, product, a.input, "adds"))


@rule("sum")
def sum_of_stack(lower: _Lowering, a: SimpleNamespace) -> Ref:
    """torch.stack(maps, axis).sum(axis), as pyramids add any number of maps."""
    stack, axes = lower.producer(a.input), getattr(a, "dim", None)
    if stack is not None and isinstance(stack.op, Torch) and stack.op.target == torch.ops.aten.stack.default:
        maps, *axis = stack.op.args
        if axes and [at % 5 for at in axes] == [sum(axis) % 5] and not a.keepdim and a.dtype in (None, torch.float32):
            total, *others = maps
            lower.value(total)
            for other in others:
                lower.value(other)
                total = lower.emit(Pointwise(), [total, other])
            return total if others else lower.emit(Pointwise(), [total])
    raise Unsupported("no block-sparse rule for a sum but that of a stack of maps over the stack")


@rule("square", "pow")
def square(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    if getattr(a, "exponent", 2) != 2:
        raise Unsupported(f"no block-sparse rule for a power of {a.exponent}")
    return lower.emit(Pointwise(), [a.input, a.input], combine="mul")


@rule("div")
def div(lower: _Lowering, a: SimpleNamespace) -> Ref:
    for known in (unit_length, unit_variance):
        normal = known(lower, a.input, a.other)
        if normal is not None:
            return normal
    if not isinstance(a.input, Ref) or isinstance(a.other, Ref) or getattr(a, "rounding_mode", None) is not None:
        raise Unsupported("no block-sparse rule for a division by a map or with rounding")
    divisor = per_channel(a.other, lower.value(a.input))
    return _scale(lower, a.input, (1.0 / divisor.double()).float())


@rule("neg")
def neg(lower: _Lowering, a: SimpleNamespace) -> Ref:
    return lower.emit(Pointwise(), [a.input], scale=filled(lower.value(a.input), -1.0))


def _matched(lower: _Lowering, x: Ref, other: Ref, verb: str) -> list[Ref]:
    """The two maps, that of the result's shape first; the other may have one pixel or one channel for all."""
    first, second = lower.value(x), lower.value(other)
    result = tuple(lower.result.shape)
    _, c, h, w = result
    for a, b in (((x, first), (other, second)), ((other, second), (x, first))):
        if a[1].shape == result and b[1].shape in (result, (1, c, 1, 1), (1, 1, h, w)):
            return [a[0], b[0]]
    raise Unsupported(f"{verb} maps of two shapes, {list(first.shape[1:])} and {list(second.shape[1:])}")


def _scale(lower: _Lowering, x: Ref, scale: Any) -> Ref:
    """x * scale[c]; by hand, relu6(x + 3) / 6 is hardsigmoid and x * relu6(x + 3) / 6 is hardswish."""
    if bool(((scale - 1 / 6).abs() < 1e-8).all()):
        node = lower.pointwise(x)
        shifted = _clamped_after_shift(lower, node)
        if shifted is not None:
            return lower.emit(Pointwise(), [shifted], activation="hardsigmoid")
        if node is not None and len(node.inputs) == 2 and node.epilogue.combine == "mul":
            for factor, gate in (node.inputs, node.inputs[::-1]):
                if _clamped_after_shift(lower, lower.pointwise(Ref(gate))) == Ref(factor):
                    return lower.emit(Pointwise(), [Ref(factor)], activation="hardswish")
    return lower.emit(Pointwise(), [x], scale=scale)


def _clamped_after_shift(lower: _Lowering, node: Node | None) -> Ref | None:
    """x, where `node` is relu6(x + 3)."""
    if node is None or node.epilogue.activation != "clamp" or node.epilogue.bounds != (0.0, 6.0):
        return None
    shifted = lower.pointwise(Ref(node.inputs[0]))
    if shifted is None or shifted.epilogue.shift is None or shifted.epilogue.scale is not None:
        return None
    return Ref(shifted.inputs[0]) if bool((shifted.epilogue.shift == 3).all()) else None


def _gated(lower: _Lowering, x: Ref, gate: Ref) -> str | None:
    """The activation that x * gate is, where the gate is a function of x: SiLU, hardswish or mish by hand."""
    node = lower.pointwise(gate)
    if node is None or node.epilogue.is_affine:
        return None
    if node.inputs == (x.name,):
        return {"sigmoid": "silu", "hardsigmoid": "hardswish"}.get(node.epilogue.activation)
    inner = lower.pointwise(Ref(node.inputs[0]))
    if inner is None or inner.inputs != (x.name,) or inner.epilogue.is_affine:
        return None
    names = (node.epilogue.activation, inner.epilogue.activation)
    return "mish" if names == ("tanh", "softplus") else None
