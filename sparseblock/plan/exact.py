"""ExactPlan: what changed in the frame decides what runs, and the outputs are the dense network's."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch.utils import _pytree as pytree

from sparseblock.backends.cpu import native
from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.capture import Signature
from sparseblock.plan.changes import ChangeCache, Changes, seen_by, tilings
from sparseblock.plan.gates import Gate
from sparseblock.plan.ir import Conv2d, Graph, Node, Ref
from sparseblock.plan.macs import axis_macs
from sparseblock.plan.placement import TILE, Placement
from sparseblock.plan.plan import Plan, timed
from sparseblock.plan.report import Report
from sparseblock.plan.residual_gates import ResidualGate
from sparseblock.plan.steps import Steps
from sparseblock.plan.torch_call import Locals, TorchCall
from sparseblock.plan.whole import WholeChoice, measure

FRAME = "frame"  # the frame's key among tolerances

Tolerance = float | Mapping[str, float] | None


@dataclass(frozen=True)
class NodeStats:
    """One node in one frame.

    Attributes:
        name: as in `NodeReport`.
        computed, passed, tiles: tiles that were computed, that differed by enough to be passed on, and that there are.
        macs: multiply-accumulates that were computed.
        dropped: the largest difference that was kept from the node's readers.
    """

    name: str
    computed: int
    passed: int
    tiles: int
    macs: int
    dropped: float


@dataclass(frozen=True)
class FrameStats:
    """What a frame took; `str()` is a table.

    Attributes:
        changed: share of the frame's pixels that changed.
        nodes: in the order in which they run.
        macs, dense_macs: multiply-accumulates that were computed, and those of the dense network.
    """

    changed: float
    nodes: tuple[NodeStats, ...]
    macs: int
    dense_macs: int

    def __str__(self) -> str:
        width = max((len(node.name) for node in self.nodes), default=0)
        lines = [f"{'node':{width}}  computed  passed on     tiles      MMAC  dropped"]
        for node in self.nodes:
            lines.append(
                f"{node.name:{width}}  {node.computed:8d}  {node.passed:9d}  {node.tiles:8d}  "
                f"{node.macs / 1e6:8.1f}  {node.dropped:7.2g}"
            )
        share = self.macs / self.dense_macs if self.dense_macs else 0.0
        lines.append("")
        lines.append(
            f"{100 * self.changed:.2f} % of the frame changed; {self.macs / 1e9:.3f} GMAC, {100 * share:.2f} % of dense"
        )
        return "\n".join(lines)


class ExactPlan(Plan):
    """A network whose outputs are the dense network's, at the price of what changed.

    A frame is compared with the one before, bit by bit. What changed grows by the reach of each layer (kernel, stride,
    dilation, resize), pixel by pixel, and is computed in tiles of 2 or 4 pixels of each layer's own map. Every value
    has the bits that a run of the whole frame gives it.

    With a tolerance the plan is *bounded*. A tile whose new value differs from the one its readers last saw by less
    than the tolerance in every element is not passed on and keeps the value they saw. So at any time every value lies
    within its tolerance of what its layer computes from the values it reads: nothing drifts, however slow a change is.
    What that makes of the outputs, `sparseblock.verify` measures.

    A stream of whose frame a certain share changed runs whole: nothing is followed and nothing held back. From which
    share on is measured when the plan is made.

    With residual gates it is no longer exact: a gated convolution computes those tiles alone whose input changed by
    enough for its gate (`sparseblock.plan.ResidualGate`), and all that follows takes that for what changed. Such a plan
    runs no frame whole but a stream's first.

    Made by `sparseblock.compile(..., mode="exact")`; called as any plan, with None for the blocks. Its `grid` is the
    tiles that the frame is copied in; `block_macs` is None, as those have no MACs of their own.

    Attributes:
        network: `graph` with its weights, for `verify`.
        tolerances: by value, the frame's too; below 0 where nothing is compared.
        whole: from which share of changed tiles on a stream's frame runs whole, and why; None with gates.
        residual_gates: by the value that the gated convolution makes.
    """

    _pickled: ClassVar = (*Plan._pickled, "tolerances", "whole", "residual_gates")

    def __init__(
        self,
        graph: Graph,
        signature: Signature,
        tolerance: Tolerance = None,
        whole_from: float | None = None,
        gates: Mapping[str, ResidualGate] | None = None,
    ) -> None:
        (frame,) = graph.inputs
        _, _, h, w = graph.values[frame].shape
        self.tolerances = _by_value(graph, tolerance)
        self.residual_gates = {node.output: gates[node.origin] for node in graph.nodes if node.gated}
        self.whole: WholeChoice | None = None
        super().__init__(graph, signature, BlockGrid(h, w, TILE), algorithms="direct")
        if not self.residual_gates:
            self.whole = self._measured() if whole_from is None else WholeChoice(whole_from)

    def _measured(self) -> WholeChoice:
        state = self.new_state()

        def run(frame: torch.Tensor, whole_from: float) -> None:
            self.whole = WholeChoice(whole_from)
            self(frame, None, state)

        return measure(run, self.graph.values[self._frame].shape)

    def _arrange(self, *given: Any) -> None:
        super()._arrange(*given)
        (self._frame,) = self.graph.inputs
        self._nodes = self.graph.producers()
        self._axis_macs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._tilings = tilings(self.graph, self._placements)

    def _place(self, graph: Graph) -> dict[str, Placement]:
        """A gated convolution has the tiles of its gate, or one of all of its map."""
        sides = {name: max(graph.values[name].shape[2:]) for name in self.residual_gates}
        tiles = {
            name: Placement("sparse", "", min(gate.tile, sides[name])) for name, gate in self.residual_gates.items()
        }
        return super()._place(graph) | tiles

    def _is_alone(self, node: Node) -> bool:
        return False  # its gates are native

    def _pack(self, graph: Graph) -> None:
        super()._pack(graph)
        self.network = graph
        self._follow()

    def _follow(self) -> None:
        """How changes pass through what runs."""
        self._changes = Changes(self.graph, self._placements, self.tolerances, self.residual_gates)
        self._spreads = [
            self._changes.spreads([segment.node] if isinstance(segment, TorchCall) else segment.nodes)
            for segment in self._segments
        ]

    def with_tolerance(self, tolerance: Tolerance) -> ExactPlan:
        """The same plan with other tolerances, as `sparseblock.compile` takes them. States of either fit the other.

        Raises:
            SparseBlockError: this plan has no weights, or a tolerance is negative or of no layer.
        """
        self.check_weights()
        plan = object.__new__(ExactPlan)
        plan.__dict__.update(self.__dict__)
        plan.tolerances = _by_value(self.graph, tolerance)
        plan._follow()
        return plan

    def check_weights(self) -> None:
        """Raises SparseBlockError where this plan was unpickled and has no weights."""
        if self._segments is None:
            raise SparseBlockError("plan: it was unpickled and has no weights yet; first call plan.with_weights(model)")

    def new_state(self, streams: int = 1) -> ChangeCache:
        """As `Plan.new_state`; the state also remembers each stream's last frame."""
        self._check_streams(streams)
        return ChangeCache(self._specs, streams, self._tilings, self._frame, seen_by(self.graph, self.residual_gates))

    def stats(self, state: ChangeCache) -> FrameStats:
        """What the last frame of `state` took: tiles and MACs of every node.

        Raises:
            SparseBlockError: the state is not of this plan.
        """
        if not isinstance(state, ChangeCache) or state.specs is not self._specs:
            raise SparseBlockError("plan: state is not of this plan; make it with plan.new_state()")
        nodes = []
        for number, (name, tiling) in enumerate(state.tilings.items()):
            if name == self._frame:
                changed = float(state.pixels[name].float().mean()) if state.counts[0] else 0.0
                continue
            node, tiles = self._nodes[name], len(state.indices[name])
            if state.ran_whole:
                macs = self._node_macs[name] * state.streams
                nodes.append(NodeStats(node.name, tiles, tiles, tiles, macs, 0.0))
                continue
            count = int(state.counts[number])
            nodes.append(
                NodeStats(
                    name=node.name,
                    computed=count,
                    passed=int(state.passed[number]) if count else 0,
                    tiles=tiles,
                    macs=self._macs_of(name, state.indices[name][:count], tiling),
                    dropped=float(state.dropped[number]) if count else 0.0,
                )
            )
        macs = sum(node.macs for node in nodes)
        return FrameStats(changed, tuple(nodes), macs, self.macs * state.streams)

    def report(self) -> Report:
        """As `Plan.report`, with each gate and tolerance among the reasons, and when frames run whole."""
        report = super().report()
        nodes = tuple(
            replace(row, reason="; ".join(filter(None, (self._gate_of(node) or row.reason, self._held_back(node)))))
            for row, node in zip(report.nodes, self.graph.nodes, strict=True)
        )
        return replace(report, nodes=nodes, whole=self.whole)

    def _gate_of(self, node: Node) -> str:
        return str(self.residual_gates.get(node.output, ""))

    def _held_back(self, node: Node) -> str:
        tolerance = self.tolerances.get(node.output, -1.0)
        return f"tolerance {tolerance:g}" if tolerance >= 0 else ""

    def _blocks_of_maps(self) -> None:
        """Every map has tiles of its own."""
        return

    def _sum_block_macs(self) -> None:
        return

    def _macs_of(self, name: str, index: torch.Tensor, tiling: Any) -> int:
        node = self._nodes[name]
        if not isinstance(node.op, Conv2d):
            return self._node_macs[name] * len(index)  # one tile, or nothing
        if name not in self._axis_macs:
            self._axis_macs[name] = axis_macs(node, self.graph, tiling.tile, *tiling.tiles)
        per_row, per_col = self._axis_macs[name]
        return int((per_row[index[:, 1].long()] * per_col[index[:, 2].long()]).sum())

    def _run_frame(
        self,
        maps: list[Any],
        blocks: Any,
        state: Any,
        times: list[tuple[str, float]] | None,
        gates: Mapping[str, Gate | BlockSet],
    ) -> Any:
        (frame,) = maps
        self._check_frame(self._frame, frame, state)
        if gates:
            raise SparseBlockError(
                'plan: gates are given, but those of an exact plan are its own: compile(..., mode="exact", gates={...})'
            )
        if blocks is not None:
            raise SparseBlockError(
                "plan: blocks are given, but an exact plan finds what to compute by itself; give it None, or compile a "
                'plan with mode="grid"'
            )
        try:
            self._run_changes(frame, state, times)
        except BaseException:
            # The frame is taken up, and not by all layers: the next one would find it unchanged.
            state.frames[:] = [0] * state.streams
            raise
        state.frames[:] = [seen + 1 for seen in state.frames]
        leaves = [self._output(leaf, state, state.held) for leaf in self.graph.outputs]
        return pytree.tree_unflatten(leaves, self._signature.result)

    def _output(self, leaf: Any, state: ChangeCache, held: Locals) -> Any:
        """As `Plan._output`; of what lies in no plane a copy, since it is kept while it does not change."""
        out = super()._output(leaf, state, held)
        kept = isinstance(leaf, Ref) and leaf.name not in self._with_plane and isinstance(out, torch.Tensor)
        return out.clone() if kept else out

    def _run_changes(self, frame: torch.Tensor, state: ChangeCache, times: list[tuple[str, float]] | None) -> None:
        threads = torch.get_num_threads()
        state.counts.zero_()  # a frame that did not change runs nothing
        changed = state.compare(frame, self.tolerances[self._frame], threads)
        whole = state.whole > 0
        if self.whole is not None:
            whole |= (changed > 0) & (changed >= self.whole.share)
        state.ran_whole = bool(whole.all()) and not self.residual_gates  # which have to see it
        if state.ran_whole:
            self._run_whole(state, threads, times)
        elif changed.any():
            whole = whole.byte()
            for segment, spreads in zip(self._segments, self._spreads, strict=True):
                if isinstance(segment, TorchCall):
                    timed(lambda s=segment, r=spreads: self._call(s, r, state, whole), segment.node, times)
                else:
                    self._run_steps(segment, spreads, state, whole, threads, times)

    def _run_whole(self, state: ChangeCache, threads: int, times: list[tuple[str, float]] | None) -> None:
        streams = range(state.streams)
        for segment in self._segments:
            if isinstance(segment, TorchCall):
                timed(lambda s=segment: s.run(state, state.held, streams), segment.node, times)
                continue
            seconds = None if times is None else (ctypes.c_double * len(segment.nodes))()
            segment.run_whole(state.planes, threads, seconds)
            _add_times(times, segment, seconds)

    def _call(self, segment: TorchCall, spreads: Any, state: ChangeCache, whole: torch.Tensor) -> None:
        """A call to torch for the streams where something that it reads changed."""
        native.lib().sb_spread_run(spreads, state.changes, len(whole), whole.data_ptr())
        changed = state.pixels[segment.node.output].flatten().nonzero().flatten().tolist()
        segment.run(state, state.held, changed)

    def _run_steps(
        self, segment: Steps, spreads: Any, state: ChangeCache, whole: torch.Tensor, threads: int, times: Any
    ) -> None:
        seconds = None if times is None else (ctypes.c_double * len(segment.nodes))()
        first = self._changes.number(segment.nodes[0].output)
        segment.run_changes(state.planes, spreads, state.changes, whole, threads, state.dropped[first:], seconds)
        _add_times(times, segment, seconds)


def _add_times(times: list[tuple[str, float]] | None, segment: Steps, seconds: Any) -> None:
    if times is not None:
        times += [(node.title, spent) for node, spent in zip(segment.nodes, seconds, strict=True)]


def _by_value(graph: Graph, tolerance: Tolerance) -> dict[str, float]:
    """The tolerance of the frame and of every node's value; below 0 where nothing is compared."""
    given = tolerance if isinstance(tolerance, Mapping) else {}
    (frame,) = graph.inputs
    known = {FRAME: frame} | {node.output: node.output for node in graph.nodes}
    origins: dict[str, list[str]] = {}
    for node in graph.nodes:
        origins.setdefault(node.name, []).append(node.output)
    names = [frame, *(node.output for node in graph.nodes if not node.is_view)]
    tolerances = dict.fromkeys(names, -1.0 if tolerance is None or given else _checked("every layer", tolerance))
    for name, value in given.items():
        outputs = origins.get(name) or ([known[name]] if name in known else None)
        if outputs is None:
            first = ", ".join(map(repr, [FRAME, *list(origins)[:3]]))
            raise SparseBlockError(f"compile: tolerance has {name!r}, which is no layer; there are {first}, ...")
        tolerances |= dict.fromkeys(outputs, _checked(repr(name), value))
    return tolerances


def _checked(name: str, tolerance: Any) -> float:
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < float("inf"):
        raise SparseBlockError(
            f"compile: tolerance of {name} is {tolerance!r}; it must be a number of at least 0; what is to be compared "
            "with nothing has none: leave its name, or all of tolerance=, out"
        )
    return float(tolerance)
