"""Changes from frame to frame, followed through a graph: the plan's part (`Changes`) and the state's (`ChangeCache`).

Every value that something computes has marks and tiles of its own. Concatenations and slices have none: who reads them
reads the values that lie there, so a change stays within its channels.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from sparseblock.backends.cpu import native
from sparseblock.cache import FeatureCache, PlaneSpec, check_state, check_tensor
from sparseblock.errors import SparseBlockError
from sparseblock.plan.ir import Graph, Node, Slice
from sparseblock.plan.placement import TILE, Placement
from sparseblock.plan.reach import everything, grouped, reads
from sparseblock.plan.residual_gates import ResidualGate, native_gate
from sparseblock.plan.torch_call import Locals


@dataclass(frozen=True)
class Tiling:
    """The pixels of a value, and of one of its tiles; what is no map, or runs whole, is one pixel."""

    h: int
    w: int
    tile: int

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return math.ceil(self.h / self.tile), math.ceil(self.w / self.tile)


@dataclass(frozen=True)
class Seen:
    """What a residual gate remembers: an input [c, h, w], and, where it `carries`, something of each output pixel."""

    c: int
    h: int
    w: int
    carries: bool


def seen_by(graph: Graph, gates: Mapping[str, ResidualGate]) -> dict[str, Seen]:
    """Of every gate, by the value that its convolution makes."""
    made_by = graph.producers()
    return {name: Seen(*graph.values[made_by[name].inputs[0]].shape[1:], gate.carries) for name, gate in gates.items()}


def tilings(graph: Graph, placements: dict[str, Placement]) -> dict[str, Tiling]:
    """Of the frame and of every node's output that something computes, in order; a value's number is its place."""
    (frame,) = graph.inputs
    found = {frame: Tiling(*graph.values[frame].shape[2:], TILE)}
    for node in graph.nodes:
        if not node.is_view:
            tile = placements[node.output].block
            size = graph.values[node.output].shape[2:] if tile else (1, 1)
            found[node.output] = Tiling(*size, tile or 1)
    return found


class Changes:
    """How changes pass from value to value."""

    def __init__(
        self,
        graph: Graph,
        placements: dict[str, Placement],
        tolerances: dict[str, float],
        gates: Mapping[str, ResidualGate],
    ) -> None:
        self._graph = graph
        self._gates = gates
        self._producers = graph.producers()
        self._tilings = tilings(graph, placements)
        self._numbers = {name: number for number, name in enumerate(self._tilings)}
        self._tolerances = tolerances
        self._alive: list[Any] = []  # what the native structs point to
        self._known: dict[tuple[bytes, bytes], native.Reach] = {}

    def number(self, name: str) -> int:
        return self._numbers[name]

    def spreads(self, nodes: Sequence[Node]) -> ctypes.Array[native.Spread]:
        """One `sb_spread` per node."""
        return (native.Spread * len(nodes))(*map(self._spread, nodes))

    def _spread(self, node: Node) -> native.Spread:
        found = [
            self._source(node, place, name) for place, read in enumerate(node.inputs) for name in self._leaves(read)
        ]
        sources = (native.Source * len(found))(*found)
        self._alive.append(sources)
        spread = native.Spread(sources, len(found), self._numbers[node.output], self._tolerances.get(node.output, -1.0))
        if node.output in self._gates:
            spread.gate = native_gate(node, self._gates[node.output], self._graph, self._alive, self._reach)
        return spread

    def _leaves(self, name: str, first: int = 0, last: int | None = None) -> Iterator[str]:
        """The values that lie in channels [first, last) of `name`."""
        node = self._producers.get(name)
        if node is None or not node.is_view:
            yield name
            return
        last = self._graph.values[name].shape[1] if last is None else last
        if isinstance(node.op, Slice):
            yield from self._leaves(node.inputs[0], node.op.start + first, node.op.start + last)
            return
        offset = 0
        for part in node.inputs:  # of a concatenation
            channels = self._graph.values[part].shape[1]
            low, high = max(first - offset, 0), min(last - offset, channels)
            if low < high:
                yield from self._leaves(part, low, high)
            offset += channels

    def _source(self, node: Node, place: int, name: str) -> native.Source:
        x, out = self._tilings[name], self._tilings[node.output]
        rows, cols = (
            reads(node, place, self._graph, axis) if min(sizes) > 1 else everything(*sizes)
            for axis, sizes in enumerate(((out.h, x.h), (out.w, x.w)))
        )
        by_column = grouped(cols[1], cols[0], x.w)
        return native.Source(self._numbers[name], self._reach(*grouped(*rows, out.h)), self._reach(*by_column))

    def _reach(self, start: np.ndarray, index: np.ndarray) -> native.Reach:
        key = start.tobytes(), index.tobytes()
        if key not in self._known:
            self._alive += [start, index]
            self._known[key] = native.Reach(start.ctypes.data, index.ctypes.data)
        return self._known[key]


class ChangeCache(FeatureCache):
    """A `FeatureCache` that also remembers each stream's last frame, and what changed since.

    Attributes:
        changes: the table for `sb_run_changes`, one entry per value of `tilings`.
        pixels: uint8 [n, h, w] by value: 1 where it is not what it was.
        indices: int32 [tiles, 3] by value: the tiles that the last frame computed, as many as `counts` says.
        counts, passed: int32 [values]: how many tiles the last frame computed, and did not hold back.
        dropped: float32 [values]: the largest difference that it held back.
        held: values without a plane, by stream.
        seen: what residual gates remember, by value: `sb_changes` has what.
        ran_whole: whether the last frame ran whole, so that there are no lists of its tiles.
    """

    state_keys: ClassVar = (*FeatureCache.state_keys, "last", "held", "seen")

    @torch.inference_mode(False)  # whose tensors cannot be written to outside of it
    def __init__(
        self,
        specs: Sequence[PlaneSpec],
        streams: int,
        tilings: dict[str, Tiling],
        frame: str,
        gated: Mapping[str, Seen],
    ) -> None:
        super().__init__(specs, streams)
        self.tilings = tilings
        self._gated = gated
        self.seen = {name: self._memory(name, sizes) for name, sizes in gated.items()}
        self.pixels = {
            name: torch.zeros(streams, tiling.h, tiling.w, dtype=torch.uint8) for name, tiling in tilings.items()
        }
        self.indices = {
            name: torch.zeros(streams * math.prod(tiling.tiles), 3, dtype=torch.int32)
            for name, tiling in tilings.items()
        }
        self.counts, self.passed = torch.zeros(2, len(tilings), dtype=torch.int32)
        self.dropped = torch.zeros(len(tilings))
        self.ran_whole = False
        self.held: Locals = [{} for _ in range(streams)]
        self.changes = (native.Changes * len(tilings))()
        for number, (name, tiling) in enumerate(tilings.items()):
            memory = self.pixels[name], self.indices[name], self.counts[number:], self.passed[number:]
            sizes = tiling.h, tiling.w, tiling.tile
            seen = (tensor.data_ptr() for tensor in self.seen.get(name, {}).values())
            self.changes[number] = native.Changes(*(tensor.data_ptr() for tensor in memory), *sizes, *seen)
        self._frame = frame
        self._size = (streams, specs[self._numbers[frame]].c, tilings[frame].h, tilings[frame].w)
        self._last: torch.Tensor | None = None

    def _memory(self, name: str, sizes: Seen) -> dict[str, torch.Tensor]:
        """What a gate remembers, in the order of `sb_changes`."""
        memory = {"reference": (sizes.h, sizes.w, sizes.c), "difference": (sizes.h, sizes.w)}
        if sizes.carries:
            memory["carried"] = (self.tilings[name].h, self.tilings[name].w)
        return {kind: torch.zeros(self.streams, *shape) for kind, shape in memory.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        """As `FeatureCache`; the frame's own value is what of it was taken up."""
        return self._last if name == self._frame and self._last is not None else super().__getitem__(name)

    @property
    def whole(self) -> torch.Tensor:
        """uint8 [n]: the streams that have seen nothing yet."""
        return torch.tensor([seen == 0 for seen in self.frames], dtype=torch.uint8)

    def compare(self, frame: torch.Tensor, tolerance: float, threads: int) -> torch.Tensor:
        """Marks the pixels of the frame that changed, and takes them up; returns the share of tiles that did, [n].

        Kernels read what was taken up, so that they see nothing that was held back.
        """
        if self._last is None:
            self._last = _without_gaps(frame)
            self.bind(self._frame, self._last)
        format = torch.contiguous_format if self._last.is_contiguous() else torch.channels_last
        frame = frame.contiguous(memory_format=format).as_strided(self._last.shape, self._last.stride())
        x, last, whole = native.plane_of(frame), native.plane_of(self._last), self.whole
        native.lib().sb_compare_run(x, last, tolerance, self.changes[0], whole.data_ptr(), threads)
        index = self.indices[self._frame]
        tiles = torch.bincount(index[: int(self.counts[0]), 0], minlength=self.streams)
        return tiles / (len(index) // self.streams)

    def state_dict(self) -> dict[str, Any]:
        """As `FeatureCache.state_dict`, with the last frame, values without a plane, and what gates remember."""
        last = None if self._last is None else self._last.clone()
        held, seen = copy.deepcopy(self.held), copy.deepcopy(self.seen)
        return {**super().state_dict(), "last": last, "held": held, "seen": seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `FeatureCache.load_state_dict`."""
        check_state("FeatureCache", state, self.state_keys, self.streams)
        last, held = state["last"], state["held"]
        if last is not None or any(state["frames"]):
            check_tensor("FeatureCache: last", last, torch.empty(()).expand(self._size))
        if not isinstance(held, list) or [type(of_stream) for of_stream in held] != [dict] * self.streams:
            raise SparseBlockError(
                f"FeatureCache: held is no list of {self.streams} dicts; load what a state of the same plan gave"
            )
        seen = _by_kind(state["seen"])
        if seen is None or seen.keys() != _by_kind(self.seen).keys():
            raise SparseBlockError("FeatureCache: seen is of other gates; load what a state of the same plan gave")
        for key, own in _by_kind(self.seen).items():
            check_tensor(f"FeatureCache: {key[1]} of the gate of {key[0]!r}", seen[key], own)
        super().load_state_dict(state)
        for key, own in _by_kind(self.seen).items():
            own.copy_(seen[key])
        self.held = copy.deepcopy(held)
        self._last = None if last is None else _without_gaps(last).copy_(last)
        if last is not None:
            self.bind(self._frame, self._last)

    def _empty(self) -> ChangeCache:
        return ChangeCache(self.specs, self.streams, self.tilings, self._frame, self._gated)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes, of the last frame, of the lists of tiles and of what gates remember."""
        last = 0 if self._last is None else self._last.nbytes
        tiles = sum(tensor.nbytes for tensor in (*self.pixels.values(), *self.indices.values()))
        seen = sum(tensor.nbytes for tensor in _by_kind(self.seen).values())
        return super().nbytes + last + tiles + seen


def _by_kind(seen: Any) -> dict[tuple[str, str], torch.Tensor] | None:
    """What gates remember, by value and kind; None where it is no such dict."""
    if not isinstance(seen, dict) or not all(isinstance(kinds, dict) for kinds in seen.values()):
        return None
    return {(name, kind): tensor for name, kinds in seen.items() for kind, tensor in kinds.items()}


def _without_gaps(frame: torch.Tensor) -> torch.Tensor:
    """Memory for `frame`, in that of PyTorch's two layouts that is its own or next to it."""
    if frame.is_contiguous(memory_format=torch.channels_last) and not frame.is_contiguous():
        return torch.empty(frame.shape, memory_format=torch.channels_last)
    return torch.empty(frame.shape)
