"""Plan: a compiled network, and how a frame runs through it."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sparseblock import profiling
from sparseblock.backends import selected
from sparseblock.backends.cpu import native
from sparseblock.blocks import BlockSet, check_place
from sparseblock.cache import FeatureCache, PlaneSpec, check_device, shared_bytes
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.active import check_blocks, check_first_frames
from sparseblock.plan.capture import MAP, Signature
from sparseblock.plan.chains import Chain, find_chains
from sparseblock.plan.choice import Choice, choose
from sparseblock.plan.gates import Gate, check_gates, mark_gated, open_tiles
from sparseblock.plan.ir import Conv2d, Graph, Node, Ref, Torch
from sparseblock.plan.macs import block_macs, node_macs
from sparseblock.plan.passes import run_passes
from sparseblock.plan.placement import Placement, place
from sparseblock.plan.planes import assign_planes
from sparseblock.plan.report import NodeReport, Report
from sparseblock.plan.steps import Steps
from sparseblock.plan.strides import track_strides
from sparseblock.plan.structure import check_same, without_filters, without_weights
from sparseblock.plan.torch_call import Locals, TorchCall
from sparseblock.plan.trace import trace_call


class Plan:
    """A network compiled for one frame size. Made by `sparseblock.compile`; nothing in it changes.

    Attributes:
        grid: the blocks of a frame.
        macs: multiply-accumulates of the dense network on one frame.
        dense_macs: the part of them that runs whatever is active.
        block_macs: int64 [rows, cols]: those of each block, clipped to the frame. A frame with `mask` active takes
            dense_macs + block_macs[mask].sum().
        algorithms: of each native convolution, by the name of its output; `compile` takes it to choose alike.
        graph: the network as it runs, for tools. Weights of convolutions that run natively are on torch's meta device:
            the kernels have packed them, and the plan keeps no second copy.
        dtype: what feature maps are stored in, and outputs come in.
        device: where frames, lists of blocks and states are.
        backend: what computes, which must be in force when the plan runs.
    """

    backend = "cpu"
    device = torch.device("cpu")
    _pickled: ClassVar = ("grid", "dtype", "_signature", "_choices")

    def __init__(
        self,
        graph: Graph,
        signature: Signature,
        grid: BlockGrid,
        dtype: torch.dtype = torch.float32,
        algorithms: str | Mapping[str, str] | None = None,
    ) -> None:
        self.grid = grid
        self.dtype = dtype
        self._signature = signature
        self._arrange(graph, lambda: choose(graph, self._placements, algorithms, dtype))
        self._pack(graph)

    def _arrange(self, graph: Graph, choices: Callable[[], dict[str, Choice]]) -> None:
        """All that does not depend on the values of weights."""
        self.graph = without_filters(graph)
        blocks = self._blocks_of_maps()
        self._placements = self._place(graph)
        self._gated = {node.origin: node for node in self.graph.nodes if node.gated}
        dense = [name for name, node in self._gated.items() if self._placements[node.output].kind != "sparse"]
        if dense:
            reason = self._placements[self._gated[dense[0]].output].reason
            raise SparseBlockError(f"compile: gates has {dense[0]!r}, which runs dense: {reason}")
        self._choices = choices()
        self.algorithms = {name: choice.algorithm for name, choice in self._choices.items()}
        self._chains = self._find_chains(graph, blocks)
        self._specs: tuple[PlaneSpec, ...] = assign_planes(
            graph, blocks, self._placements, self.dtype, self._chains, self._align, self._keeps_rims
        )
        self._with_plane = {spec.name for spec in self._specs}
        self._segments: tuple[Any, ...] | None = None
        self._isa = native.lib().sb_isa()
        self._node_macs = {node.output: node_macs(node, graph) for node in graph.nodes}
        self.block_macs = self._sum_block_macs()
        self.macs = sum(self._node_macs.values())
        self.dense_macs = sum(macs for name, macs in self._node_macs.items() if self._placements[name].kind != "sparse")
        self._all_blocks: dict[int, BlockSet] = {}
        # A frame without active blocks leaves every plane as it is; only values outside of planes must then be made.
        self._always_run = bool(graph.output_names() - self._with_plane)

    def _place(self, graph: Graph) -> dict[str, Placement]:
        return place(graph, self._blocks_of_maps())

    @property
    def _align(self) -> int:
        """Bytes at multiples of which pixels of planes begin."""
        return 1

    @property
    def _keeps_rims(self) -> bool:
        """Whether what runs the graph can keep rims in place of maps."""
        return True

    def _pack(self, graph: Graph) -> None:
        """What runs, from a graph with weights."""
        self._segments = self._build_segments(graph)
        self._isa = native.lib().sb_isa()

    def new_state(self, streams: int = 1) -> FeatureCache:
        """Planes for `streams` videos that have seen nothing yet.

        Raises:
            SparseBlockError: `streams` is no positive integer, or the network has an output without a batch axis, which
                several streams cannot share.
        """
        self._check_streams(streams)
        return FeatureCache(self._specs, streams)

    def _check_streams(self, streams: int) -> None:
        if streams != 1:
            made_by = self.graph.producers()
            for name in self.graph.output_names() - self._with_plane:
                value = self.graph.values[name]
                if value.shape is None or value.shape[:1] != (1,):
                    raise SparseBlockError(
                        f"new_state: the output of {made_by[name].name} is {list(value.shape or ())} for one frame, "
                        f"without an axis for {streams} streams; use one state per stream"
                    )

    def to(self, device: torch.device | str) -> Plan:
        """This plan, where it runs on `device` already.

        Raises:
            SparseBlockError: it runs on another: what it runs was packed for that one.
        """
        check_device("plan", device, self.device)
        return self

    # Frozen, so a copy is the plan itself.
    def __copy__(self) -> Plan:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: the network's structure and all decisions, no weights; see `with_weights`."""
        return {name: getattr(self, name) for name in self._pickled} | {"graph": without_weights(self.graph)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        graph = state.pop("graph")
        self.__dict__.update(state)
        self._arrange(graph, lambda: self._choices)

    def with_weights(self, model: nn.Module) -> Plan:
        """The same plan with the weights that `model` has now: the module that it was compiled from, or one like it.

        A pickled plan comes back without weights: its structure, report and decisions are there, and states can be made
        of it, but it runs no frame. The plan that this returns has the same kernels, so it gives the same bits for the
        same weights on a machine with the same instruction set. States of either plan fit the other.

        Raises:
            SparseBlockError: as `sparseblock.compile` for the module, it makes another graph, or this machine lacks a
                kernel that the plan has chosen.

        Example:
            >>> plan = pickle.loads(data).with_weights(model)
        """
        maps = iter([torch.zeros(self.graph.values[name].shape) for name in self.graph.inputs])
        leaves = [next(maps) if fixed is MAP else fixed for fixed in self._signature.fixed]
        args, kwargs = pytree.tree_unflatten(leaves, self._signature.arguments)
        graph, _ = trace_call(model, args, kwargs)
        graph = track_strides(graph, [self.graph.values[name].stride for name in self.graph.inputs])
        with torch.no_grad():
            graph = run_passes(mark_gated(graph, list(self._gated)), self._blocks_of_maps())
            check_same(self.graph, graph, type(model).__name__)
            choose(graph, self._placements, self.algorithms, self.dtype)  # whether they are there
            plan = object.__new__(type(self))
            plan.__dict__.update(self.__dict__)
            plan._pack(graph)
        return plan

    def output_planes(self, state: FeatureCache) -> list[torch.Tensor]:
        """The planes of `state` that the network's outputs are views of."""
        return [state[name] for name in self._handed]

    @functools.cached_property
    def _handed(self) -> dict[str, str]:
        """The planes that outputs are views of, and the names of the nodes that make them."""
        made_by = self.graph.producers()
        return {name: made_by[name].name for name in sorted(self.graph.output_names() & self._with_plane)}

    @torch.no_grad()
    def __call__(
        self,
        frame: Any,
        blocks: BlockSet | torch.Tensor | None,
        state: FeatureCache,
        gates: Mapping[str, Gate | BlockSet] | None = None,
    ) -> Any:
        """Runs one frame of every stream and returns what the network returns.

        Args:
            frame: float32 [n, c, h, w] with any strides, n being the streams of `state`; or, where the network takes
                several maps, such maps in the structure of the example.
            blocks: what to recompute: a BlockSet or a bool mask [n, rows, cols] over `grid`, or None for everything. A
                stream's first frame takes all of its blocks.
            state: from `new_state`; updated in place.
            gates: for layers that the plan was compiled with gates for: a `Gate`, asked just before its layer, or the
                open tiles themselves. A layer runs where both its gate and `blocks` say so; without one as all others
                do. Where no block is active nothing runs, and no gate is asked.

        A frame that breaks off, as a gate or a torch operator raised or somebody interrupted it, has been taken up by
        some layers and not by others: the streams then begin anew, and their next frame takes all blocks.

        Returns:
            The network's outputs in its own structure, what is float32 there in `dtype`. Tensors [n, c, h, w] are views
            of the state's planes: they are what they are until the state's next frame; clone what is to last or to be
            changed.

        Raises:
            SparseBlockError: frame, blocks, state or gates do not fit this plan, or a stream's first frame is not
                whole, or something has written to what the last frame returned and this one would keep it.
        """
        return self._run(self._signature.maps((frame,), {}), blocks, state, None, gates or {})

    @torch.no_grad()
    def call(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        blocks: BlockSet | torch.Tensor | None,
        state: FeatureCache,
    ) -> Any:
        """Runs as a call does, on the arguments of a module that takes more than one."""
        return self._run(self._signature.maps(args, kwargs), blocks, state, None, {})

    @torch.no_grad()
    def profile(
        self,
        frame: Any,
        blocks: BlockSet | torch.Tensor | None,
        state: FeatureCache,
        gates: Mapping[str, Gate | BlockSet] | None = None,
    ) -> list[tuple[str, float]]:
        """Runs one frame as a call does; returns (node, seconds) for every node that has something to do, in order.

        The nodes of a chain run together: its time is divided among them as the threads spent theirs.
        """
        times: list[tuple[str, float]] = []
        self._run(self._signature.maps((frame,), {}), blocks, state, times, gates or {})
        return times

    def report(self) -> Report:
        """What runs sparse, what does not and why, MACs and memory."""
        specs = {spec.name: spec for spec in self._specs}
        places = {node.output: place for place, node in enumerate(self.graph.nodes)}
        numbers = {name: number for number, chain in enumerate(self._chains, 1) for name in chain.pieces}
        pieces = {name: piece for chain in self._chains for name, piece in chain.pieces.items()}
        nodes = []
        for node in self.graph.nodes:
            value, placement = self.graph.values[node.output], self._placements[node.output]
            nodes.append(
                NodeReport(
                    name=node.name,
                    op=node.label,
                    placement=placement.kind,
                    reason=placement.reason or _remark(node),
                    kernel=self._kernel(node),
                    choice=self._choice(node),
                    shape=value.shape[1:] if value.is_map else None,
                    macs=self._node_macs[node.output],
                    chain=numbers.get(node.output),
                    **_memory(specs.get(node.output), pieces, specs),
                    inputs=tuple(places[name] for name in node.inputs if name in places),
                )
            )
        return Report(
            grid=(self.grid.rows, self.grid.cols, self.grid.block_size),
            dtype=str(self.dtype).removeprefix("torch."),
            nodes=tuple(nodes),
            macs=self.macs,
            dense_macs=self.dense_macs,
            weight_bytes=sum(part.weight_bytes for part in self._segments or () if not isinstance(part, TorchCall)),
            plane_bytes=sum(spec.nbytes for spec in self._specs),
            shared_bytes=shared_bytes(self._specs),
            scratch_bytes=max(
                (spec.scratch + _piece_bytes(spec, pieces) for spec in self._specs if spec.scratch is not None),
                default=0,
            ),
        )

    def _kernel(self, node: Node) -> str:
        """What computes it, for its report."""
        if node.is_view:
            return ""
        if isinstance(node.op, Torch):
            return "torch"
        algorithm = self.algorithms.get(node.output, "direct")
        return " ".join(["cpu", self._isa.decode(), *([] if algorithm == "direct" else [algorithm])])

    def _choice(self, node: Node) -> Choice | None:
        """Of a native convolution, for its report."""
        return self._choices.get(node.output)

    def _blocks_of_maps(self) -> BlockGrid | None:
        """The grid that all maps share, if they do."""
        return self.grid

    def _find_chains(self, graph: Graph, blocks: BlockGrid | None) -> tuple[Chain, ...]:
        return find_chains(graph, blocks, self._placements, self.algorithms, self.dtype)

    def _build_segments(self, graph: Graph) -> tuple[Steps | TorchCall, ...]:
        """Nodes that move data, native ones together in runs as long as can be."""
        segments: list[Steps | TorchCall] = []
        run: list[Node] = []
        for node in [*graph.nodes, None]:
            if node is not None and node.is_view:
                continue
            if node is not None and not isinstance(node.op, Torch) and not self._is_alone(node):
                run.append(node)
                continue
            if run:
                segments.append(Steps(run, graph, self._placements, self._specs, self._choices, self._chains))
                run = []
            if node is not None and self._is_alone(node):
                segments.append(Steps([node], graph, self._placements, self._specs, self._choices, ()))
            elif node is not None:
                segments.append(TorchCall(node, self._with_plane))
        return tuple(segments)

    def _is_alone(self, node: Node) -> bool:
        """Whether it is a native call by itself, before which its gate is asked."""
        return node.gated

    def _sum_block_macs(self) -> torch.Tensor:
        total = torch.zeros(self.grid.rows, self.grid.cols, dtype=torch.int64)
        for node in self.graph.nodes:
            placement = self._placements[node.output]
            if isinstance(node.op, Conv2d) and placement.kind == "sparse":
                total += block_macs(node, self.graph, placement.block, self.grid.rows, self.grid.cols)
        return total

    def _run(self, maps: list[Any], blocks: Any, state: Any, times: Any, gates: Mapping[str, Any]) -> Any:
        device = self.device.type
        self._check_state(state)
        if blocks is not None or gates or self._blocks_of_maps() is None:  # else the frame keeps nothing
            state.check_kept("plan")
        with profiling.span("frame"):
            if not torch.is_autocast_enabled(device):
                out = self._run_frame(maps, blocks, state, times, gates)
            else:
                with torch.autocast(device, enabled=False):  # what runs on torch is to give what was captured
                    out = self._run_frame(maps, blocks, state, times, gates)
        state.hand_out(self._handed)
        return out

    def _run_frame(
        self,
        maps: list[Any],
        blocks: Any,
        state: Any,
        times: list[tuple[str, float]] | None,
        gates: Mapping[str, Gate | BlockSet],
    ) -> Any:
        frames = dict(zip(self.graph.inputs, maps, strict=True))
        for name, frame in frames.items():
            self._check_frame(name, frame, state)
        check_gates(gates, self._gated)
        active = self._active(blocks, state)
        held: Locals = [{} for _ in range(state.streams)]
        if self._always_run or times is not None or int(active.count):
            try:
                self._run_segments(frames, active, state, held, times, gates)
            except BaseException:
                # Some layers have taken the frame up, others not: the streams begin anew.
                state.frames[:] = [0] * state.streams
                raise
        state.frames[:] = [seen + 1 for seen in state.frames]
        leaves = [self._output(leaf, state, held) for leaf in self.graph.outputs]
        return pytree.tree_unflatten(leaves, self._signature.result)

    def _run_segments(
        self,
        frames: Mapping[str, torch.Tensor],
        active: BlockSet,
        state: FeatureCache,
        held: Locals,
        times: list[tuple[str, float]] | None,
        gates: Mapping[str, Gate | BlockSet],
    ) -> None:
        for name, frame in frames.items():
            state.bind(name, frame)
        threads = torch.get_num_threads()
        for segment in self._segments:
            if isinstance(segment, TorchCall):
                timed(lambda segment=segment: segment.run(state, held, range(state.streams)), segment.node, times)
                continue
            node = segment.nodes[0]
            seconds = None if times is None else (ctypes.c_double * len(segment.nodes))()
            if node.gated and node.origin in gates:
                x = frames[node.inputs[0]] if node.inputs[0] in frames else state[node.inputs[0]]
                placement = self._placements[node.output]
                tiles = open_tiles(gates[node.origin], node, placement, x, active, state)
                segment.run_tiles(state.planes, tiles, threads, seconds)
            else:
                segment.run(state.planes, active, threads, seconds)
            if times is not None:
                times += [(node.title, spent) for node, spent in zip(segment.nodes, seconds, strict=True)]

    def _output(self, leaf: Any, state: FeatureCache, held: Locals) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        if leaf.name in self._with_plane:
            return state[leaf.name]
        values = [of_stream[leaf.name] for of_stream in held]
        value = values[0] if len(values) == 1 else torch.cat(values)
        return value.to(self.dtype) if self.graph.values[leaf.name].is_map else value

    def _check_state(self, state: Any) -> None:
        if self._segments is None:
            raise SparseBlockError(
                "plan: it was unpickled and has no weights yet; run the plan that plan.with_weights(model) returns"
            )
        in_force = selected(self.device)
        if in_force != self.backend:
            raise SparseBlockError(
                f"plan: compiled for the {self.backend} backend, but {in_force} is in force; compile it again there"
            )
        if not isinstance(state, FeatureCache) or state.specs is not self._specs:
            raise SparseBlockError("plan: state is not of this plan; make it with plan.new_state()")
        if self._isa != native.lib().sb_isa():
            raise SparseBlockError(
                f"plan: compiled for {self._isa.decode()}, but the kernels now run {native.lib().sb_isa().decode()}; "
                "compile it again"
            )

    def _check_frame(self, name: str, frame: Any, state: FeatureCache) -> None:
        _, c, h, w = self.graph.values[name].shape
        expected = (state.streams, c, h, w)
        what = "frame" if len(self.graph.inputs) == 1 else name
        if isinstance(frame, torch.Tensor) and frame.layout != torch.strided:
            raise SparseBlockError(f"plan: {what} is {frame.layout}; it must be a dense tensor: frame.to_dense()")
        if not isinstance(frame, torch.Tensor) or frame.dtype != torch.float32 or frame.device != self.device:
            given = f"{frame.dtype} on {frame.device}" if isinstance(frame, torch.Tensor) else type(frame).__name__
            raise SparseBlockError(f"plan: {what} is {given}; it must be float32 on {self.device}")
        if tuple(frame.shape) != expected:
            raise SparseBlockError(
                f"plan: {what} is {list(frame.shape)}; this plan and state take {list(expected)} [n, c, h, w]: "
                'compile a plan for each frame size, or one with on_resize="reset"; make a state with as many streams '
                "as a frame has"
            )

    def _active(self, blocks: Any, state: FeatureCache) -> BlockSet:
        n, grid = state.streams, self.grid
        if blocks is None:
            if n not in self._all_blocks:
                self._all_blocks[n] = BlockSet.all(n, grid.rows, grid.cols, grid.block_size, self.device)
            return self._all_blocks[n]
        check_blocks(blocks, grid, n)
        if isinstance(blocks, torch.Tensor):
            mask, active = blocks, BlockSet.from_mask(blocks.to(self.device, non_blocking=True), grid.block_size)
        else:
            mask, active = None, blocks
            check_place("plan", blocks, "the frame", self.device)
        if 0 in state.frames:
            check_first_frames(active.to_mask() if mask is None else mask, state.frames)
        return active


def _memory(spec: PlaneSpec | None, pieces: dict[str, tuple[int, int]], specs: dict[str, PlaneSpec]) -> dict[str, Any]:
    """Where a value lies and how many bytes it takes there, for its node's report."""
    if spec is None or spec.parent is not None:
        return {"memory": "", "bytes": 0}
    if spec.scratch is not None:
        return {"memory": "scratch", "bytes": _piece_bytes(spec, pieces)}
    if spec.rims is not None:
        kept = (specs[name].size for name in (spec.rims.rows, spec.rims.cols) if name in specs)
        return {"memory": "rims", "bytes": sum(kept)}
    return {"memory": "plane" if spec.shared is None else "shared", "bytes": spec.size}


def _piece_bytes(spec: PlaneSpec, pieces: dict[str, tuple[int, int]]) -> int:
    rows, cols = pieces[spec.name]
    return replace(spec, h=rows, w=cols).size


def timed(call: Callable[[], None], node: Node, times: list[tuple[str, float]] | None) -> None:
    start = time.perf_counter()
    with profiling.span(node.title):
        call()
    if times is not None:
        times.append((node.title, time.perf_counter() - start))


def _remark(node: Node) -> str:
    if node.gated:
        return "takes a gate"
    return "written in place by its inputs' nodes" if node.label == "concat" else ""
