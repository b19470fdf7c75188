"""The second way in: `torch.compile(model, backend="sparseblock")`, and how a frame's blocks reach what it compiles.

Dynamo hands over graphs, each a straight piece of the model between two of its graph breaks, with weights among the
arguments. A graph with convolutions becomes a plan at its first call; any other runs as it is.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from sparseblock.blocks import BlockSet
from sparseblock.cache import FeatureCache, check_stream, check_streams
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.capture import Uncapturable
from sparseblock.plan.nested import NestedReport, block_mask
from sparseblock.plan.passes import run_passes
from sparseblock.plan.plan import Plan
from sparseblock.plan.strides import stride_by_size, track_strides
from sparseblock.plan.trace import trace_call

Size = tuple[int, int]


def backend(graph: fx.GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None) -> CompiledGraph:
    """What `torch.compile(model, backend="sparseblock", options={"block_size": 64})` calls for every graph.

    The compiled model runs all blocks, or within `sparseblock.active` those that are given there. It returns new
    tensors, and follows later changes to the weights: the next frame then runs whole.

    Args:
        graph: from dynamo.
        inputs: examples of its arguments.
        options: `block_size`: pixels of the frame along both sides of a block; 128 unless given.

    Raises:
        SparseBlockError: there is another option.
    """
    options = dict(options or {})
    block_size = options.pop("block_size", 128)
    if options:
        raise SparseBlockError(f"torch.compile: sparseblock has no option {next(iter(options))!r}; it has block_size")
    static = tuple("_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {}) for node in _arguments(graph))
    return CompiledGraph(graph, static, block_size)


@dataclass(eq=False)
class CompiledState:
    """What `streams` videos have left in the graphs of compiled models. Given to `sparseblock.active`.

    Attributes:
        streams: number of videos.
        frames: frames seen by each stream since its start or reset.
        grid: the blocks of a frame; None until the first frame has said its size.

    Example:
        >>> fast, state = torch.compile(model, backend="sparseblock"), sparseblock.CompiledState()
        >>> with torch.no_grad(), sparseblock.active(None, state):
        ...     out = fast(frame)
    """

    streams: int = 1
    frames: list[int] = field(default_factory=list)
    grid: BlockGrid | None = None
    _strides: dict[Size, Fraction] = field(default_factory=dict)
    _caches: dict[tuple[CompiledGraph, int], _Cache] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_streams("CompiledState", self.streams)
        self.frames = [0] * self.streams

    def reset(self, stream: int | None = None) -> None:
        """Forgets what one stream, or where `stream` is None every stream, has seen; its next frame is its first.

        Raises:
            SparseBlockError: there is no such stream.
        """
        check_stream("CompiledState.reset", stream, self.streams)
        for kept in self._caches.values():
            kept.cache.reset(stream)
        chosen = slice(None) if stream is None else slice(stream, stream + 1)
        self.frames[chosen] = [0] * len(self.frames[chosen])

    def report(self) -> NestedReport:
        """What runs sparse in every graph that has run, and what does not and why."""
        plans = {f"graph {i + 1}": kept.plan for i, kept in enumerate(self._caches.values())}
        grid = (0, 0, 0) if self.grid is None else (self.grid.rows, self.grid.cols, self.grid.block_size)
        macs, dense = (sum(getattr(plan, what) for plan in plans.values()) for what in ("macs", "dense_macs"))
        return NestedReport(grid, {name: plan.report() for name, plan in plans.items()}, macs, dense, "")


@dataclass(eq=False)
class _Cache:
    """A plan of a graph, its planes, and the blocks of frames in which the graph was not called."""

    plan: Plan
    cache: FeatureCache
    pending: torch.Tensor


@contextlib.contextmanager
def active(blocks: BlockSet | torch.Tensor | None, state: CompiledState) -> Iterator[None]:
    """One frame of models compiled with `torch.compile(backend="sparseblock")`: they run `blocks` and keep the rest.

    Args:
        blocks: a BlockSet or a bool mask [n, rows, cols] over the blocks of the frame, the largest map that the first
            graph with convolutions reads; or None for everything. A stream's first frame takes all of its blocks.
        state: of the video; updated in place.

    Raises:
        SparseBlockError: `state` is no CompiledState; in the compiled call: blocks do not fit, or a stream's first
            frame is not whole.

    Example:
        >>> with torch.no_grad(), sparseblock.active(mask, state):
        ...     out = fast(frame)
    """
    if not isinstance(state, CompiledState):
        raise SparseBlockError(f"active: state is a {type(state).__name__}; it must be a sparseblock.CompiledState")
    frame = _Frame(blocks, state)
    token = _FRAME.set(frame)
    try:
        yield
    finally:
        _FRAME.reset(token)
        frame.finish()


class CompiledGraph:
    """One graph of dynamo's, as what dynamo calls."""

    def __init__(self, graph: fx.GraphModule, static: tuple[bool, ...], block_size: int) -> None:
        self._graph = graph
        self._static = static
        self._block_size = block_size
        self._convolves = any(_is_convolution(node, graph) for node in graph.graph.nodes)
        self._plans: dict[Any, Plan] = {}
        self._left = ""  # why no plan can be made of it
        self._stamp: tuple = ()
        self._whole = threading.local()  # a state for calls outside of `active`, which run all blocks

    def __call__(self, *args: Any) -> Any:
        if not self._convolves:
            return self._graph(*args)
        maps = [arg for arg, static in zip(args, self._static, strict=True) if not static and torch.is_tensor(arg)]
        frame = _FRAME.get(None)
        if frame is None:
            states = self._whole.__dict__
            streams = maps[0].shape[0] if maps and maps[0].dim() == 4 else 1
            frame = _Frame(None, states.setdefault(f"of {streams}", CompiledState(max(streams, 1))))
        unfit = frame.unfit(maps, self._block_size) or self._left
        if unfit:
            return self._dense(unfit, args)
        if torch.is_grad_enabled() and any(torch.is_tensor(arg) and arg.requires_grad for arg in args):
            raise SparseBlockError("torch.compile: sparseblock keeps no gradients; call the model in torch.no_grad()")
        try:
            with torch.no_grad():
                return pytree.tree_map_only(torch.Tensor, _own, frame.run(self, args, maps))
        except Uncapturable as error:
            self._left = str(error)
            return self._dense(self._left, args)

    def _dense(self, why: str, args: Sequence[Any]) -> Any:
        warnings.warn(f"sparseblock: a graph with convolutions runs dense: {why}", stacklevel=3)
        return self._graph(*args)

    def plan(self, args: Sequence[Any], maps: list[torch.Tensor], grid: BlockGrid, strides: list[Fraction]) -> Plan:
        """The plan for maps of these sizes and these weights."""
        weights = [arg for arg, static in zip(args, self._static, strict=True) if static]
        stamp = tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights)
        if stamp != self._stamp:
            self._plans, self._stamp = {}, stamp
        fixed = tuple(arg for arg in args if not torch.is_tensor(arg))
        key = (fixed, tuple(tuple(x.shape[1:]) for x in maps), grid, tuple(strides))
        plans = self._plans  # which another thread may replace meanwhile
        if key not in plans:
            graph, signature = trace_call(_Bound(self._graph, args, self._static).eval(), maps, {})
            graph = run_passes(track_strides(graph, strides), grid)
            plans[key] = Plan(graph, signature, grid)
        return plans[key]


class _Frame:
    """One frame on its way through compiled graphs."""

    def __init__(self, blocks: Any, state: CompiledState) -> None:
        self.blocks, self.state = blocks, state
        self.calls: Counter[CompiledGraph] = Counter()
        self.mask: torch.Tensor | None = None

    def unfit(self, maps: list[torch.Tensor], block_size: int) -> str:
        """Why a graph that reads these tensors cannot be a plan in this frame; "" where it can."""
        shapes = [list(x.shape) for x in maps]
        if not maps or any(x.dim() != 4 or x.dtype != torch.float32 or min(x.shape) < 1 for x in maps):
            return f"it reads {shapes}, which are no float32 maps [n, c, h, w]"
        if any(x.shape[0] != self.state.streams for x in maps):
            return f"it reads {shapes}, which are not of {self.state.streams} streams"
        sizes = [tuple(x.shape[2:]) for x in maps]
        if self.mask is None:
            self._begin(max(sizes, key=lambda size: size[0] * size[1]), block_size)
        if None in self._strides(sizes):
            return f"it reads {shapes}, which are no whole part of a frame of {self._size()}"
        return ""

    def run(self, graph: CompiledGraph, args: Sequence[Any], maps: list[torch.Tensor]) -> Any:
        state, key = self.state, (graph, self.calls[graph])
        self.calls[graph] += 1
        plan = graph.plan(args, maps, state.grid, self._strides([tuple(x.shape[2:]) for x in maps]))
        for value in plan.graph.values.values():
            if value.is_map and value.stride is not None:
                state._strides.setdefault(value.shape[2:], value.stride)
        kept = state._caches.get(key)
        if kept is None or kept.plan is not plan:
            kept = state._caches[key] = _Cache(plan, plan.new_state(state.streams), torch.ones_like(self.mask))
        mask = self.mask | kept.pending
        out = plan.call(maps, {}, None if bool(mask.all()) else mask, kept.cache)
        kept.pending = torch.zeros_like(mask)
        return out

    def finish(self) -> None:
        if self.mask is None:
            return
        for (graph, number), kept in self.state._caches.items():
            if number >= self.calls[graph]:
                kept.pending = kept.pending | self.mask
        self.state.frames[:] = [seen + 1 for seen in self.state.frames]

    def _begin(self, size: Size, block_size: int) -> None:
        """The first graph of a frame says how large the frame is."""
        state = self.state
        if state.grid is None:
            state.grid = BlockGrid(*size, block_size)
            state._strides[size] = Fraction(1)
        if (size, block_size) != (self._size(), state.grid.block_size):
            raise SparseBlockError(
                f"torch.compile: the frame is {list(size)} in blocks of {block_size} px, but this state is of "
                f"{list(self._size())} in blocks of {state.grid.block_size} px; use a CompiledState for each"
            )
        self.mask = block_mask(self.blocks, state.grid, state.frames)

    def _size(self) -> Size:
        return self.state.grid.height, self.state.grid.width

    def _strides(self, sizes: list[Size]) -> list[Fraction | None]:
        return [self.state._strides.get(size) or stride_by_size(self._size(), size) for size in sizes]


class _Bound(nn.Module):
    """A graph of dynamo's with its weights and sizes in place, as a module of its maps."""

    def __init__(self, graph: fx.GraphModule, args: Sequence[Any], static: Sequence[bool]) -> None:
        super().__init__()
        self.graph = graph
        self.fixed: list[Any] = []
        for number, (arg, is_static) in enumerate(zip(args, static, strict=True)):
            if is_static:
                self.register_buffer(f"weight{number}", arg.detach())
            self.fixed.append(None if torch.is_tensor(arg) else arg)
        self.static = static

    def forward(self, *maps: torch.Tensor) -> Any:
        rest = iter(maps)
        args = []
        for number, (fixed, is_static) in enumerate(zip(self.fixed, self.static, strict=True)):
            if is_static:
                args.append(getattr(self, f"weight{number}"))
            else:
                args.append(next(rest) if fixed is None else fixed)
        return self.graph(*args)


def _own(view: torch.Tensor) -> torch.Tensor:
    """A copy, contiguous as an eager result is: what is compiled after a graph break may view it."""
    return view.clone(memory_format=torch.contiguous_format)


def _arguments(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _is_convolution(node: fx.Node, graph: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return any(isinstance(module, nn.modules.conv._ConvNd) for module in graph.get_submodule(node.target).modules())
    return node.op == "call_function" and "conv" in getattr(node.target, "__name__", "")


_FRAME: ContextVar[_Frame] = ContextVar("the frame that runs in this thread")
