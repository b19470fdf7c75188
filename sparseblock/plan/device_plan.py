"""DevicePlan: a network that runs op by op on a backend, on a GPU as one CUDA graph for every density."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sparseblock import profiling
from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.conv2d import family
from sparseblock.blocks import BlockSet
from sparseblock.cache import FeatureCache, PlaneSpec
from sparseblock.grid import BlockGrid
from sparseblock.plan.capture import Signature
from sparseblock.plan.choice import Choice
from sparseblock.plan.gates import Gate, check_gates, open_tiles
from sparseblock.plan.ir import Conv2d, Graph, Node, Torch
from sparseblock.plan.op_calls import OpCall, on_device
from sparseblock.plan.plan import Plan
from sparseblock.plan.recording import Recording, can_record
from sparseblock.plan.torch_call import Locals, TorchCall
from sparseblock.plan.trace import on_host

Outputs = list[Any]  # the leaves of what the network returns


class DevicePlan(Plan):
    """A network whose every layer is a call of a backend's op.

    Lists of blocks and their counts stay on the device. On a GPU a state's second frame is recorded as a CUDA graph,
    which later frames replay whatever is active: these never make the host wait, the first two do. Frames with gates,
    which are Python, frames while a profiler listens, and frames in a recording of the caller's, run op by op.

    Made by `sparseblock.compile` for a model on a GPU, or under `sparseblock.backend(name)`; called as any plan.
    Convolutions are direct, or, with algorithms="tf32" on the cuda backend, on tensor cores in float32 too.
    """

    _pickled: ClassVar = (*Plan._pickled, "backend", "device", "_algorithm")

    def __init__(
        self,
        graph: Graph,
        signature: Signature,
        grid: BlockGrid,
        dtype: torch.dtype,
        backend: str,
        device: torch.device,
        algorithm: str = "direct",
    ) -> None:
        self.backend = backend
        self._algorithm = algorithm
        self.device = torch.empty(0, device=device).device  # with its number
        super().__init__(graph, signature, grid, dtype, algorithms="direct")

    def _pack(self, graph: Graph) -> None:
        super()._pack(on_device(graph, self.device))

    @property
    def _align(self) -> int:
        """CUDA kernels read and write 16 bytes at a time, and Hopper's convolution copies no others."""
        return 16 if self.backend == "cuda" else 1

    @property
    def _keeps_rims(self) -> bool:
        """No backend's ops know of rims."""
        return False

    def with_weights(self, model: nn.Module) -> Plan:
        """As `Plan.with_weights`; the module may be on the plan's device, or on the host."""
        return super().with_weights(on_host(model))

    def new_state(self, streams: int = 1) -> DeviceCache:
        """As `Plan.new_state`, on the plan's device."""
        self._check_streams(streams)
        return DeviceCache(self._specs, streams, self.device)

    def _find_chains(self, graph: Graph, blocks: BlockGrid | None) -> tuple[()]:
        """Each layer is a kernel of its own."""
        return ()

    def _build_segments(self, graph: Graph) -> tuple[OpCall | TorchCall, ...]:
        return tuple(
            TorchCall(node, self._with_plane)
            if isinstance(node.op, Torch)
            else OpCall(node, graph, self._placements[node.output], self.backend, self._algorithm)
            for node in graph.nodes
            if not node.is_view
        )

    def _kernel(self, node: Node) -> str:
        if node.is_view or isinstance(node.op, Torch):
            return "" if node.is_view else "torch"
        if self.backend != "cuda" or not isinstance(node.op, Conv2d) or not self._device_is_here:
            return self.backend
        op, name = node.op, node.inputs[0]
        window = (*op.weight.shape[2:], *op.stride, *op.padding, *op.dilation)
        modes = {"transposed": op.transposed, "pad_mode": native.PAD_MODES[op.padding_mode]}
        channels = self.graph.values[name].shape[1], self.graph.values[node.output].shape[1]
        conv = native.Conv2d(*channels, op.groups, *window, **modes)
        is_frame = name in self.graph.inputs
        x = torch.empty(self.graph.values[name].shape, device="meta") if is_frame else self._maps_without_memory[name]
        return f"cuda {family(conv, x, 'direct' if op.transposed else self._algorithm, self.device)}"

    def _choice(self, node: Node) -> Choice | None:
        """No candidates: which kernel runs follows from the convolution, its maps and the GPU; nothing is measured."""
        return replace(choice, candidates=()) if (choice := super()._choice(node)) else None

    @property
    def _device_is_here(self) -> bool:
        """A plan may have been pickled elsewhere."""
        return self.device.type == "cpu" or torch.cuda.is_available()

    @functools.cached_property
    def _maps_without_memory(self) -> FeatureCache:
        """How every map lies in a state."""
        return FeatureCache(self._specs, device="meta")

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
        if gates or times is not None or min(state.frames) == 0 or not can_record(self.device):
            leaves = self._compute(frames, active, state, times, gates)
        else:
            if state.recording is None:
                state.recording = self._record(frames, state)
            leaves = state.recording.replay(*frames.values(), active.index, active.count)
        state.frames[:] = [seen + 1 for seen in state.frames]
        return pytree.tree_unflatten(leaves, self._signature.result)

    def _record(self, frames: Mapping[str, torch.Tensor], state: DeviceCache) -> Recording:
        """The list of blocks has room for all of them and its count is read by the kernels: it serves every density."""
        blocks = BlockSet.all(state.streams, self.grid.rows, self.grid.cols, self.grid.block_size, self.device)

        def compute(*given: torch.Tensor) -> Outputs:
            *maps, index, count = given
            active = replace(blocks, index=index, count=count)
            return self._compute(dict(zip(frames, maps, strict=True)), active, state, None, {})

        return Recording(compute, (*frames.values(), blocks.index, blocks.count))

    def _compute(
        self,
        frames: Mapping[str, torch.Tensor],
        active: BlockSet,
        state: DeviceCache,
        times: list[tuple[str, float]] | None,
        gates: Mapping[str, Gate | BlockSet],
    ) -> Outputs:
        """One frame, op by op."""
        held: Locals = [{} for _ in range(state.streams)]

        def maps(name: str) -> torch.Tensor:
            return frames[name] if name in frames else state[name]

        def run(segment: OpCall | TorchCall) -> None:
            node = segment.node
            if isinstance(segment, TorchCall):
                segment.run(state, held, range(state.streams))
            elif node.gated and node.origin in gates:
                placement = self._placements[node.output]
                x = maps(node.inputs[0])
                tiles = open_tiles(gates[node.origin], node, placement, x, active, state)
                segment.run_tiles(maps, tiles)
            else:
                segment.run(maps, active, state.whole)
            if times is not None and self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()

        for segment in self._segments:
            shape = self.graph.values[segment.node.output].shape
            with profiling.span(segment.node.title, shape, len(active.index)):
                start = time.perf_counter()
                run(segment)
            if times is not None:
                times.append((segment.node.title, time.perf_counter() - start))
        return [self._output(leaf, state, held) for leaf in self.graph.outputs]


class DeviceCache(FeatureCache):
    """A `FeatureCache` on a plan's device.

    Attributes:
        whole: one block for every stream, on the device.
        recording: of a frame, once one is recorded; it reads and writes this cache's memory.
    """

    def __init__(self, specs: tuple[PlaneSpec, ...], streams: int, device: torch.device) -> None:
        super().__init__(specs, streams, device)
        self.whole = BlockSet.all(streams, 1, 1, block=1, device=device)
        self.recording: Recording | None = None

    def _empty(self) -> DeviceCache:
        return DeviceCache(self.specs, self.streams, self.device)
