"""A graph with its planes as steps for the native `sb_run`."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Iterator

import torch

from sparseblock import profiling
from sparseblock.backends.cpu import native, packed_weight
from sparseblock.blocks import BlockSet
from sparseblock.cache import PlaneSpec
from sparseblock.grid import interpolate_scale
from sparseblock.plan.chains import Chain
from sparseblock.plan.choice import Choice
from sparseblock.plan.ir import (
    BlockMoments,
    ChannelNorm,
    Conv2d,
    Epilogue,
    GlobalPool,
    Graph,
    GroupNorm,
    Interpolate,
    Node,
    Pad,
    Pool2d,
    Shuffle,
)
from sparseblock.plan.placement import Placement
from sparseblock.plan.structure import without_filter

_NO_TILES = torch.zeros(1, 3, dtype=torch.int32)  # a list for steps that read none


class Steps:
    """A run of native steps, one per node, with everything they point to.

    Attributes:
        nodes: the nodes, in order, without the weights that are packed.
        weight_bytes: of the packed weights.
    """

    def __init__(
        self,
        nodes: list[Node],
        graph: Graph,
        placements: dict[str, Placement],
        specs: tuple[PlaneSpec, ...],
        choices: dict[str, Choice],
        chains: tuple[Chain, ...],
    ) -> None:
        self.nodes = tuple(map(without_filter, nodes))
        self._shapes = [graph.values[node.output].shape for node in nodes]
        self.weight_bytes = 0
        self._alive: list[object] = []  # packed weights and vectors that the steps point to
        numbers = {spec.name: number for number, spec in enumerate(specs)}
        self._steps = (native.Step * len(nodes))(
            *(self._step(node, graph, placements[node.output], numbers, choices) for node in nodes)
        )
        for step in self._steps:
            if (rims := specs[step.out].rims) is not None:
                step.rims = native.Rims(numbers.get(rims.rows, -1), numbers.get(rims.cols, -1), *rims.halo)
        steps = {node.output: step for node, step in zip(nodes, self._steps, strict=True)}
        for chain in chains:
            if chain.pieces.keys() <= steps.keys():
                self._join(chain, steps, {spec.name: spec.scratch for spec in specs})

    def run(self, planes: object, active: BlockSet, threads: int, seconds: object | None = None) -> None:
        """Runs every step on the table `planes` and the blocks `active`; `seconds`, an array of doubles, receives the
        time of each.
        """
        lists = native.lists_of((active.index, active.count))
        for first, end in self._calls(len(active.index)):
            steps, times = _part(self._steps, first, end), _part(seconds, first, end)
            native.lib().sb_run(steps, end - first, planes, lists, threads, times)

    def run_tiles(self, planes: object, tiles: BlockSet, threads: int, seconds: object | None = None) -> None:
        """Runs the one step that there is on `tiles`, whatever the size of a block."""
        step = native.Step.from_buffer_copy(self._steps[0])
        step.block_h, step.block_w = tiles.block
        lists = native.lists_of((tiles.index, tiles.count))
        for _ in self._calls(len(tiles.index)):
            native.lib().sb_run(step, 1, planes, lists, threads, seconds)

    def run_changes(
        self,
        planes: object,
        spreads: object,
        changes: object,
        whole: torch.Tensor,
        threads: int,
        dropped: torch.Tensor,
        seconds: object | None = None,
    ) -> None:
        """Runs every step on the tiles that its entry of `spreads` finds, in as many streams as `whole` has, and on all
        where that is set. `dropped` receives a float per step.
        """
        for first, end in self._calls(None):
            native.lib().sb_run_changes(
                _part(self._steps, first, end), _part(spreads, first, end), end - first, planes, changes, len(whole),
                whole.data_ptr(), threads, dropped[first:].data_ptr(), _part(seconds, first, end),
            )  # fmt: skip

    def run_whole(self, planes: object, threads: int, seconds: object | None = None) -> None:
        """Runs every step on every pixel, whatever its block."""
        lists = native.lists_of((_NO_TILES, _NO_TILES[0]))
        for first, end in self._calls(None):
            steps, times = _part(self._whole, first, end), _part(seconds, first, end)
            native.lib().sb_run(steps, end - first, planes, lists, threads, times)

    @functools.cached_property
    def _whole(self) -> ctypes.Array:
        steps = type(self._steps).from_buffer_copy(self._steps)
        for step in steps:
            step.dense = 1
        return steps

    def _calls(self, capacity: int | None) -> Iterator[tuple[int, int]]:
        """First and end of the steps that one native call runs: all, or, where a tool listens, a step or a chain, while
        its range is open.
        """
        if not profiling.listening():
            yield 0, len(self.nodes)
            return
        end = 0
        while end < len(self.nodes):
            first, end = end, end + max(1, self._steps[end].chain)
            name = " > ".join(node.title for node in self.nodes[first:end])
            with profiling.span(name, self._shapes[end - 1], capacity):
                yield first, end

    def _step(
        self,
        node: Node,
        graph: Graph,
        placement: Placement,
        numbers: dict[str, int],
        choices: dict[str, Choice],
    ) -> native.Step:
        step = native.Step(
            x=numbers[node.inputs[0]],
            residual=-1 if node.residual is None else numbers[node.residual],
            out=numbers[node.output],
            list=0,
            block_h=placement.block,
            block_w=placement.block,
            dense=placement.kind != "sparse",
        )
        x, out = graph.values[node.inputs[0]], graph.values[node.output]
        bias = None
        match node.op:
            case Conv2d() as op:
                step.op, bias = native.OP_CONV2D, op.bias
                step.u.conv2d = self._conv(op, x.shape[1], out.shape[1], choices[node.output].algorithm)
            case Pool2d() as op:
                step.op = native.OP_POOL2D
                kind = native.POOL_MAX if op.kind == "max" else native.POOL_AVG
                window = (*op.kernel, *op.stride, *op.padding, *op.dilation)
                step.u.pool2d = native.Pool2d(kind, *window, op.count_include_pad, op.divisor, op.adaptive, op.outside)
            case Interpolate() as op:
                step.op = native.OP_INTERPOLATE
                mode = native.NEAREST if op.mode == "nearest" else native.BILINEAR
                factors = op.factors or (None, None)
                sizes = zip(x.shape[2:], out.shape[2:], factors, strict=True)
                scales = (
                    interpolate_scale(size, out_size, op.mode, op.align_corners, factor)
                    for size, out_size, factor in sizes
                )
                step.u.interpolate = native.Interpolate(mode, op.align_corners, *scales)
            case BlockMoments(cell=cell, order=order):
                step.op = native.OP_BLOCK_MOMENTS
                step.u.moments = native.Moments(*x.shape[2:], *cell, order)
            case GlobalPool(kind="avg") as op:
                step.op = native.OP_GLOBAL_AVG_POOL2D
                step.u.moments = native.Moments(*op.size, *op.cell, 1)
            case GlobalPool():
                step.op = native.OP_POOL2D
                step.u.pool2d = native.Pool2d(native.POOL_MAX, *x.shape[2:], 1, 1, 0, 0, 1, 1, outside=-math.inf)
            case GroupNorm(groups=groups, eps=eps, cell=cell):
                step.op, step.residual = native.OP_GROUP_NORM, numbers[node.inputs[1]]
                step.u.group_norm = native.GroupNorm(native.Moments(*x.shape[2:], *cell, 2), groups, eps)
            case ChannelNorm(kind=kind, eps=eps):
                step.op = native.OP_CHANNEL_NORM
                step.u.channel_norm = native.ChannelNorm(native.CHANNEL_NORMS[kind], eps)
            case Pad(mode=mode, padding=((top, _), (left, _)), value=value):
                step.op = native.OP_PAD
                step.u.pad = native.Pad(native.PAD_MODES[mode], top, left, value)
            case Shuffle(kind=kind, factor=factor):
                step.op = native.OP_SHUFFLE
                step.u.shuffle = native.Shuffle(native.SHUFFLES[kind], factor)
            case _:
                step.op = native.OP_POINTWISE
        step.epilogue = self._epilogue(node.epilogue, bias)
        return step

    def _join(self, chain: Chain, steps: dict[str, native.Step], scratch: dict[str, int | None]) -> None:
        steps[next(iter(chain.pieces))].chain = len(chain.pieces)
        for name, (rows, cols) in chain.pieces.items():
            step = steps[name]
            step.piece_h, step.piece_w = rows, cols
            if scratch[name] is not None:
                step.local, step.scratch = 1, scratch[name]

    def _conv(self, op: Conv2d, c: int, k: int, algorithm: str) -> native.Conv2d:
        window = (*op.weight.shape[2:], *op.stride, *op.padding, *op.dilation)
        mode = native.PAD_MODES[op.padding_mode]
        conv = native.Conv2d(c, k, op.groups, *window, int(op.transposed), mode, native.ALGORITHMS[algorithm])
        packed = packed_weight.pack(conv, op.weight)
        self._alive.append(packed)
        self.weight_bytes += packed.nbytes
        conv.packed_weight = packed.data_ptr()
        return conv

    def _epilogue(self, epilogue: Epilogue, bias: torch.Tensor | None) -> native.Epilogue:
        native_epilogue = native.epilogue_of(
            bias=bias,
            scale=epilogue.scale,
            shift=epilogue.shift,
            activation=epilogue.activation,
            slope=epilogue.slope,
            bounds=epilogue.bounds,
            combine=epilogue.combine,
        )
        self._alive.append(native_epilogue)
        return native_epilogue


def _part(array: ctypes.Array | None, first: int, end: int) -> ctypes.Array | None:
    """Elements of a ctypes array, in its memory."""
    if array is None:
        return None
    return (array._type_ * (end - first)).from_buffer(array, first * ctypes.sizeof(array._type_))
