"""How far a run of a graph may lie from the exact one: a running error analysis, element by element.

Every operation of IEEE arithmetic rounds once, by at most eps/2 of its result. A sum of K products, in any order, is
therefore within K eps of the sum of the magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and
an input that is itself off by e moves it by at most the same sum over |w| e. What is stored in bfloat16 or float16 is
rounded once more, by at most half of that dtype's eps. `ErrorBound` runs the reference in float64
and carries this bound along; nothing in it is tuned.
"""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import Any

import torch

from sparseblock.activations import EPS, TINY, bound
from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import (
    ChannelNorm,
    Concat,
    Conv2d,
    GlobalPool,
    Graph,
    GroupNorm,
    Interpolate,
    Node,
    Pad,
    Pool2d,
    Ref,
    Shuffle,
    Slice,
    Torch,
)
from sparseblock.plan.passes.drop_unused import drop_unused
from sparseblock.plan.reference import Reference

# Roundings of a value besides its sum: batch norm's scale and shift, their folding into a weight and into a bias (two),
# residual, scale, shift, slope. What an activation does to an error and adds to it, says sparseblock/activations.py.
ROUNDINGS = 8
# Torch calls that never widen an error: slopes of at most 1.
LIPSCHITZ = (torch.ops.aten.sin.default, torch.ops.aten.cos.default)
# Torch calls that move data.
_MOVING = ("reshape.default", "view.default", "permute.default", "transpose.int", "contiguous.default", "clone.default")
MOVES = tuple(operator.attrgetter(name)(torch.ops.aten) for name in _MOVING)


class ErrorBound(Reference):
    """A `Reference` whose `errors` bound, per element, what a run of these frames with planes of `stored` is off by."""

    def __init__(self, graph: Graph, grid: BlockGrid, stored: torch.dtype = torch.float32) -> None:
        super().__init__(drop_unused(graph, grid), grid)
        self.stored = stored
        self.errors: dict[str, torch.Tensor] = {}

    def __call__(self, frame: torch.Tensor, mask: torch.Tensor) -> list[Any]:
        seen = bool(self.values)
        leaves = super().__call__(frame, mask)
        for name in self.graph.inputs:
            self.errors[name] = torch.zeros_like(self.values[name])
        for node in self.graph.nodes:
            error, placement = self._error(node), self._placements[node.output]
            if not node.is_view and self.stored != torch.float32:
                kind = torch.finfo(self.stored)
                error = error + kind.eps / 2 * (self.values[node.output].abs() + error + kind.smallest_normal)
            if seen and placement.kind == "sparse" and not isinstance(node.op, Slice):
                active = self._pixels(mask, placement.block, error.shape)
                error = torch.where(active, error, self.errors[node.output])
            self.errors[node.output] = error
        return leaves

    def bounds(self) -> list[torch.Tensor | None]:
        """For every leaf of the output, of the last frame."""
        return [self.errors[leaf.name] if isinstance(leaf, Ref) else None for leaf in self.graph.outputs]

    def _error(self, node: Node) -> torch.Tensor:
        x, error = self.values[node.inputs[0]], self.errors[node.inputs[0]]
        shape = self.graph.values[node.output].shape
        match node.op:
            case Torch(target=target, args=args, kwargs=kwargs):
                if target in MOVES:
                    return target(error, *args[1:], **kwargs)
                assert target in LIPSCHITZ, f"no error bound for {target}"
                return error + ROUNDINGS * EPS
            case Concat():
                return torch.cat([self.errors[name] for name in node.inputs], 1)
            case Slice(start=start):
                return error[:, start : start + shape[1]]
            case Conv2d() as op:
                size, moved, terms = self._conv_error(op, x, error, shape)
            case Pool2d(kind="max") as op:  # what lies outside is exact
                return self._run(replace(node, op=replace(op, outside=0.0)), error)
            case Pad() as op:
                return self._run(replace(node, op=replace(op, value=0.0)), error)
            case GlobalPool(kind="max"):
                return error.amax((2, 3), keepdim=True)
            case GlobalPool():  # cells are rounded, and their mean
                return error.mean((2, 3), keepdim=True) + 2 * EPS * x.abs().mean((2, 3), keepdim=True)
            case GroupNorm() as op:
                size, moved, terms = *self._norm_error(op, x, error), 0
            case ChannelNorm() as op:
                size, moved, terms = self._channel_error(op, x, error)
            case Pool2d(kernel=kernel):
                taps = x.shape[2] * x.shape[3] if node.op.adaptive else kernel[0] * kernel[1]
                size, moved, terms = self._run(node, x.abs()), self._run(node, error), taps
            case Interpolate(mode="nearest") | Shuffle():
                return self._run(node, error)
            case Interpolate():
                # The source's place is off by eps of the side, and the weights by as much.
                side = 4 * max(x.shape[2:])
                return self._run(node, error) + EPS * side * x.abs().max()
            case _:
                size, moved, terms = x.abs(), error, 0
        return self._epilogue_error(node, size, moved, terms)

    def _conv_error(self, op: Conv2d, x: torch.Tensor, error: torch.Tensor, shape: Any) -> Any:
        magnitude = replace(op, weight=op.weight.abs(), bias=None if op.bias is None else op.bias.abs())
        size = self._conv(magnitude, x.abs(), shape)
        moved = self._conv(replace(magnitude, bias=None), error, shape)
        return size, moved, op.weight[0].numel() * (op.weight.shape[0] if op.transposed else 1)

    def _norm_error(self, op: GroupNorm, x: torch.Tensor, error: torch.Tensor) -> Any:
        """Mean and deviation move by the mean, and the root of the mean square, of what the inputs move by.

        For the deviation that is the triangle inequality: it is the norm of the vector of differences from the mean.
        """

        def grouped(v: torch.Tensor, power: int = 1) -> torch.Tensor:
            n, c = v.shape[:2]
            groups = v.pow(power).reshape(n, op.groups, -1).mean(2, keepdim=True).expand(-1, -1, c // op.groups)
            return groups.reshape(n, c, 1, 1)

        off = error + 2 * EPS * x.abs()  # the means of cells and of the map are rounded as if the inputs were
        return self._normalized_error(x, off, op.eps, grouped)

    def _normalized_error(self, x: torch.Tensor, off: torch.Tensor, eps: float, averaged: Any) -> Any:
        apart, mean = off + averaged(off), averaged(x)
        deviation = (averaged(x - mean, 2) + eps).sqrt()
        off_deviation = averaged(apart, 2).sqrt()
        least = (deviation - off_deviation).clamp(min=eps**0.5)
        moved = apart / least + (x - mean).abs() * off_deviation / (deviation * least)
        return (x.abs() + mean.abs()) / least, moved

    def _channel_error(self, op: ChannelNorm, x: torch.Tensor, error: torch.Tensor) -> Any:
        if op.kind == "layer_norm":
            return *self._normalized_error(x, error, op.eps, lambda v, power=1: v.pow(power).mean(1, keepdim=True)), 0
        if op.kind == "softmax":
            # Inputs off by E at most move e^x / S by e^2E at most; and the exponent rounds, in S too.
            result = torch.softmax(x, 1)
            moved = result * torch.expm1(2 * error.amax(1, keepdim=True)) + EPS
            return result, moved, math.ceil(math.log(x.shape[1]))
        # x' / n' - x / n = (x' - x) / n' + (x / n) (n - n') / n', with norms that differ by that of the error at most.
        norm, off = (v.norm(dim=1, keepdim=True) for v in (x, error))
        least, norm = (norm - off).clamp(min=op.eps), norm.clamp(min=op.eps)
        return x.abs() / norm, (error + x.abs() / norm * off) / least, 0

    def _epilogue_error(self, node: Node, size: torch.Tensor, moved: torch.Tensor, terms: int) -> torch.Tensor:
        if node.residual is not None:
            other, off = self.values[node.residual].abs(), self.errors[node.residual]
            if node.epilogue.combine == "add":
                size, moved = size + other, moved + off
            else:
                size, moved = size * other, moved * other + size * off + moved * off
        epilogue = node.epilogue
        if epilogue.scale is not None:
            factor = epilogue.scale.to(self.dtype).abs().reshape(1, -1, 1, 1)
            size, moved = size * factor, moved * factor
        if epilogue.shift is not None:
            size = size + epilogue.shift.to(self.dtype).abs().reshape(1, -1, 1, 1)
        of = bound(epilogue.activation, epilogue.slope)
        own = EPS * (of.relative * self.values[node.output].abs() + of.absolute) + TINY
        return of.lipschitz * (moved + EPS * (terms + ROUNDINGS) * size) + own

    def _run(self, node: Node, x: torch.Tensor) -> torch.Tensor:
        """The node's operator on another input."""
        kept = self.values[node.inputs[0]]
        self.values[node.inputs[0]] = x
        result = self._compute(node)
        self.values[node.inputs[0]] = kept
        return result


def assert_within(actual: torch.Tensor, expected: torch.Tensor, bound: torch.Tensor | float) -> None:
    """|actual - expected| <= bound, element by element; the message says where it is not, and by how much."""
    bound = torch.as_tensor(bound, dtype=torch.float64).expand(actual.shape)
    assert actual.shape == expected.shape, f"shapes differ: {list(actual.shape)} and {list(expected.shape)}"
    off = (actual.double() - expected.double()).abs()
    wrong = ~(off <= bound)
    if wrong.any():
        first = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} elements are off; first at {list(first)}: {actual[first].item()!r} "
            f"instead of {expected[first].item()!r}, bound {bound[first].item():.3g}"
        )


def depth_tolerance(reference: Reference, stored: torch.dtype = torch.float32) -> float:
    """For deep networks, where the bound above grows with every layer's weights: 2 eps, once per term of every sum, and
    the eps of what is stored once per value.

    Rounding errors of one layer are taken to reach the output as large as they are, and to be relative to the largest
    value anywhere: true where the terms of a sum are random in sign and norms keep values of one size.
    """
    terms, largest = 0, 0.0
    rounded = 0.0 if stored == torch.float32 else torch.finfo(stored).eps * len(reference.graph.nodes)
    for node in reference.graph.nodes:
        terms += (node.op.weight[0].numel() if isinstance(node.op, Conv2d) else 0) + 1
        value = reference.values[node.output]
        if torch.is_tensor(value) and value.is_floating_point():
            largest = max(largest, float(value.abs().max()))
    return (2 * EPS * terms + rounded) * largest
