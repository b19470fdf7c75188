"""`sparseblock.verify`: whether a plan's values are the dense network's, layer by layer, on frames of the user's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from sparseblock.activations import EPS, FLOOR, TINY, bound
from sparseblock.backends.reference.group_norm import statistics
from sparseblock.errors import SparseBlockError
from sparseblock.plan.exact import ExactPlan
from sparseblock.plan.ir import (
    BlockMoments,
    ChannelNorm,
    Conv2d,
    Epilogue,
    GlobalPool,
    GroupNorm,
    Interpolate,
    Node,
    Pool2d,
    Torch,
)
from sparseblock.plan.nested import NestedPlan
from sparseblock.plan.reference import Reference
from sparseblock.plan.resize import check_one_size

# Roundings of a value besides its sum: residual, scale, shift, slope.
ROUNDINGS = 8


@dataclass(frozen=True)
class Difference:
    """Where a layer first differs.

    Attributes:
        layer, frame: its name, and the number of the frame.
        place: [n, c, y, x] of the element.
        value, expected: what is there, and what should be.
        ulp: their distance in units of the last place of `expected` as a float32.
        what: what it should have been.
    """

    layer: str
    frame: int
    place: tuple[int, ...]
    value: float
    expected: float
    ulp: float
    what: str

    def __str__(self) -> str:
        return (
            f"{self.layer}, frame {self.frame}, at {list(self.place)}: {self.value!r} instead of {self.expected!r} "
            f"({self.ulp:.3g} ulp), {self.what}"
        )


@dataclass(frozen=True)
class LayerReport:
    """One layer over all frames.

    Attributes:
        name, op: as in `NodeReport`.
        error: largest distance to the dense network in float64, run on the frames themselves: what the rounding, and
            the tolerances, of all layers up to this one make of it.
        own: largest distance to what the layer should make of the values it read, in units of the distance that the
            rounding of float32 and its tolerance allow it: at most 1 where it is right.
        difference: where it first differs by more, or in its bits; None where it does not.
    """

    name: str
    op: str
    error: float
    own: float
    difference: Difference | None


@dataclass(frozen=True)
class Verification:
    """What `verify` found; `str()` is a table, and true where nothing differs.

    Attributes:
        layers: in the order in which they run.
        frames: how many frames ran.
        macs: share of the dense network's multiply-accumulates that they took, the first one included.
    """

    layers: tuple[LayerReport, ...]
    frames: int
    macs: float

    @property
    def first(self) -> Difference | None:
        """The difference of the first layer, in the order in which they run, that has one."""
        return next((layer.difference for layer in self.layers if layer.difference is not None), None)

    def __bool__(self) -> bool:
        return self.first is None

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        lines = [f"{'layer':{width}}  {'error':>8}  {'own':>6}  op"]
        for layer in self.layers:
            mark = "  <- differs" if layer.difference is not None else ""
            lines.append(f"{layer.name:{width}}  {layer.error:8.2e}  {layer.own:6.2f}  {layer.op}{mark}")
        found = "no layer differs" if self.first is None else f"first layer that differs: {self.first}"
        return "\n".join([*lines, "", f"{self.frames} frames, {100 * self.macs:.2f} % of the dense MACs: {found}"])


@torch.no_grad()
def verify(plan: ExactPlan, frames: Iterable[torch.Tensor]) -> Verification:
    """Runs `frames` through an exact plan and checks every layer's value after each.

    Each value is compared with what its layer makes, in torch and in float64, of the values that it read: the distance
    must be within the rounding of its sums, plus its tolerance. By induction from the frame on, the outputs are then
    the dense network's to rounding. Where the plan has no tolerances each value is also compared, bit by bit, with a
    run of the whole frame by itself: then nothing is stale.

    Args:
        plan: from `sparseblock.compile(..., mode="exact")`.
        frames: float32 [n, c, h, w] each, in order; n streams.

    Raises:
        SparseBlockError: the plan is not exact or has no weights, there are no frames, or one does not fit.
    """
    check_one_size("verify", plan)
    if isinstance(plan, NestedPlan):
        raise SparseBlockError(
            "verify: plan is a NestedPlan, whose parts are of the grid; only what an exact plan computes equals the "
            'dense network: compile a part by itself, on a map like those that it reads, with mode="exact"'
        )
    if not isinstance(plan, ExactPlan):
        raise SparseBlockError(
            f"verify: plan is a {type(plan).__name__}; only what an exact plan computes equals the dense network: "
            'compile it with mode="exact"'
        )
    if plan.residual_gates:
        raise SparseBlockError(
            "verify: plan has residual gates, which keep changes from its layers; compile it without, or compare its "
            "outputs with the network's"
        )
    plan.check_weights()
    check_frames("verify", frames)
    checks = [_Check(node, plan) for node in plan.network.nodes]
    state = fresh = None
    seen = macs = 0
    for number, frame in enumerate(frames):
        if state is None:
            if not isinstance(frame, torch.Tensor) or frame.dim() != 4:
                raise SparseBlockError(f"verify: frame is {type(frame).__name__}; it must be a tensor [n, c, h, w]")
            state, fresh = plan.new_state(len(frame)), plan.new_state(len(frame))
        plan(frame, None, state)
        macs += plan.stats(state).macs
        fresh.reset()
        plan(frame, None, fresh)
        for stream in range(len(frame)):
            dense = Reference(plan.network, None)
            dense(frame[stream : stream + 1], None)
            local = Reference(plan.network, None)
            values = {name: _value(state, name, stream) for name in plan.network.values}
            local.values = {name: _wide(value) for name, value in values.items()}
            for check in checks:
                check(number, stream, values, dense, local, _value(fresh, check.node.output, stream))
        seen += 1
    if not seen:
        raise SparseBlockError("verify: frames is empty; give it at least one")
    return Verification(tuple(check.report() for check in checks), seen, macs / (plan.macs * state.streams * seen or 1))


class _Check:
    """One layer over the frames."""

    def __init__(self, node: Node, plan: ExactPlan) -> None:
        self.node = node
        self._tolerance = max(plan.tolerances.get(node.output, 0.0), 0.0)
        self._bits = max(plan.tolerances.values()) <= 0.0
        self._error = self._own = 0.0
        self._difference: Difference | None = None

    def __call__(
        self, frame: int, stream: int, values: dict[str, Any], dense: Reference, local: Reference, whole: Any
    ) -> None:
        value = values[self.node.output]
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return
        self._error = max(self._error, peak(apart(_wide(value), dense.values[self.node.output])))
        expected = local._compute(self.node)
        distance = apart(_wide(value), _wide(expected))
        allowed = rounding(self.node, local, expected) + self._tolerance
        excess = torch.where(distance == 0, 0.0, distance / allowed)  # where both are NaN, so is what is allowed
        self._own = max(self._own, peak(excess))
        if self._difference is not None:
            return
        if self._bits:
            differ = _bits(value) != _bits(whole)
            self._note(differ, frame, stream, value, whole, "which a run of the whole frame gives, bit by bit")
        self._note(~(excess <= 1), frame, stream, value, expected, "which it makes of the values that it reads")

    def _note(
        self, differ: torch.Tensor, frame: int, stream: int, value: torch.Tensor, expected: torch.Tensor, what: str
    ) -> None:
        places = differ.nonzero()
        if self._difference is not None or not len(places):
            return
        first = tuple(places[0].tolist())
        found, right = float(value[first]), float(expected[first])
        nearest = expected[first].float().abs()
        spacing = float(torch.nextafter(nearest, torch.tensor(torch.inf)) - nearest)
        name = self.node.name
        place = (stream, *first[1:])
        self._difference = Difference(name, frame, place, found, right, abs(found - right) / spacing, what)

    def report(self) -> LayerReport:
        node = self.node
        return LayerReport(node.name, node.label, self._error, self._own, self._difference)


def rounding(node: Node, reference: Reference, result: torch.Tensor) -> torch.Tensor | float:
    """How far a float32 run of `node` on the values of `reference` may lie from the exact `result`.

    A sum of K products, in any order, lies within K eps of the sum of their magnitudes (Higham, Accuracy and Stability
    of Numerical Algorithms, 3.1); each further operation rounds once. Subnormal factors, addends and results of a
    convolution may count as zero: FLOOR.
    """
    op = node.op
    if isinstance(op, Torch):
        sources = [value for name in node.inputs if torch.is_tensor(value := reference.values[name])]
        terms = max((value.numel() for value in sources), default=1)
        largest = max((peak(value.abs()) for value in [*sources, result] if value.is_floating_point()), default=0.0)
        stored = reference.graph.values[node.output].dtype
        eps = max(EPS, torch.finfo(stored).eps if stored is not None and stored.is_floating_point else 0.0)
        return eps * (terms + ROUNDINGS) * largest + TINY
    if node.is_view:
        return TINY
    of = bound(node.epilogue.activation, node.epilogue.slope)
    own = EPS * (of.relative * result.abs() + of.absolute) + TINY
    if isinstance(op, (BlockMoments, GlobalPool, GroupNorm)):
        return of.lipschitz * _statistic_rounding(node, reference, result) + own
    if isinstance(op, ChannelNorm):
        return of.lipschitz * _channel_rounding(node, reference) + own
    terms = 1
    if isinstance(op, Conv2d):
        terms = op.weight[0].numel() * (op.weight.shape[0] if op.transposed else 1)
        channels = op.weight.shape[1] * op.groups if op.transposed else op.weight.shape[0]
        bias = op.weight.new_zeros(channels) if op.bias is None else op.bias.abs()
        op = replace(op, weight=op.weight.abs().clamp(min=FLOOR), bias=bias + FLOOR)
    elif isinstance(op, Pool2d):
        terms = math.prod(reference.values[node.inputs[0]].shape[2:]) if op.adaptive else math.prod(op.kernel)
    epilogue = replace(
        node.epilogue,
        activation=None,
        **{
            name: None if (vector := getattr(node.epilogue, name)) is None else vector.abs().clamp(min=FLOOR)
            for name in ("scale", "shift", "slope")
        },
    )
    magnitudes = Reference(reference.graph, None, reference.dtype)
    magnitudes.values = {name: reference.values[name].abs().clamp(min=FLOOR) for name in node.inputs}
    size = magnitudes._compute(replace(node, op=op, epilogue=epilogue))
    if isinstance(op, Interpolate):  # the source's place is off by eps of the side, and the weights by as much
        x = magnitudes.values[node.inputs[0]]
        size = size + 4 * max(x.shape[2:]) * float(x.max())
    return of.lipschitz * EPS * (terms + ROUNDINGS) * size + own


def _statistic_rounding(node: Node, reference: Reference, result: torch.Tensor) -> float:
    """The same for statistics of a map, whose sums are taken cell by cell: K is a cell's pixels, plus the cells."""
    op, (x, *cells) = node.op, [reference.values[name] for name in node.inputs]
    largest, pixels = peak(x.abs()), math.prod(op.cell or x.shape[2:])
    if isinstance(op, BlockMoments):
        return EPS * (pixels + ROUNDINGS) * max(largest, pixels * largest**2 if op.order == 2 else 0.0)
    if isinstance(op, GlobalPool):
        return EPS * (x[0, 0].numel() + ROUNDINGS) * largest
    _, variance = statistics(cells[0], x.shape[2:], op.cell, op.groups)
    terms = pixels + cells[0][0].numel() // op.groups + ROUNDINGS
    scale = 1.0 if node.epilogue.scale is None else peak(node.epilogue.scale.abs())
    # A mean or a standard deviation that is off by e moves a normalized value by e over the standard deviation.
    return (
        EPS * terms * (scale * largest * float((variance + op.eps).rsqrt().max()) ** 2 * largest + peak(result.abs()))
    )


def _channel_rounding(node: Node, reference: Reference) -> torch.Tensor:
    """The same where a pixel's channels are brought to one scale by sums in double precision.

    A softmax e^(x - max) / S rounds the exponent, which moves it by 0.2 eps and S by log(c) / 2 eps of it at most.
    """
    e = node.epilogue
    size = reference._compute(replace(node, epilogue=Epilogue())).abs()
    if node.op.kind == "softmax":
        return EPS * ((ROUNDINGS + math.log(size.shape[1])) * size + 1)
    for vector, join in ((e.scale, torch.mul), (e.shift, torch.add)):
        size = size if vector is None else join(size, vector.abs().reshape(1, -1, 1, 1))
    return EPS * ROUNDINGS * size


def check_frames(what: str, frames: Any) -> None:
    """Raises SparseBlockError where there is nothing to go through."""
    if not isinstance(frames, Iterable):
        raise SparseBlockError(f"{what}: frames is a {type(frames).__name__}; it must be tensors [n, c, h, w] in order")


def _value(state: Any, name: str, stream: int) -> Any:
    """A stream's value, wherever it is kept; None where nothing made it."""
    held = state.held[stream]
    if name in held:
        return held[name]
    try:
        return state[name][stream : stream + 1]
    except SparseBlockError:
        return None


def _bits(value: torch.Tensor) -> torch.Tensor:
    """As integers; a NaN is one of them, whichever it is."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[value.itemsize]
    return torch.where(value.isnan(), torch.nan, value).contiguous().view(integers)


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def apart(value: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """|value - expected|; 0 where both are the same infinity or NaN, infinite where one alone is."""
    same = (value == expected) | (value.isnan() & expected.isnan())
    return torch.where(same, 0.0, (value - expected).abs().nan_to_num(nan=torch.inf))


def peak(values: torch.Tensor) -> float:
    """The largest element, 0 of none."""
    return float(values.max()) if values.numel() else 0.0
