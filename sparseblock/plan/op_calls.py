"""A node as calls of a backend's ops on the planes of a state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock import backends
from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import pool_extent
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
    Torch,
)
from sparseblock.plan.placement import Placement

Maps = Callable[[str], torch.Tensor]  # a value's map [n, c, h, w], by its name


class OpCall:
    """One node. It moves no data to or from the device, and waits for nothing.

    An epilogue that the op cannot do is a second call, in place: such a value is rounded twice where maps are halves.
    Convolutions of the cuda backend do every one.

    Attributes:
        node: the node.
        weight_bytes: of its convolution's weights.
    """

    def __init__(self, node: Node, graph: Graph, placement: Placement, backend: str, algorithm: str) -> None:
        self.node = node
        self.weight_bytes = node.op.weight.nbytes if isinstance(node.op, Conv2d) else 0
        self._block = placement.block if placement.kind == "sparse" else None
        self._shape = graph.values[node.output].shape
        op_of = functools.partial(backends.implementation, backend)
        self._calls = _calls(node, graph, op_of, algorithm, fuses_affine=backend == "cuda")

    def run(self, maps: Maps, active: BlockSet, whole: BlockSet) -> None:
        """Computes the node in the blocks `active`, or, where it does not run sparse, in all.

        Args:
            whole: one block for every image.
        """
        if self._block is None:
            self.run_tiles(maps, whole.with_block(self._shape[2:]))
        else:
            self.run_tiles(maps, active.with_block(self._block))

    def run_tiles(self, maps: Maps, tiles: BlockSet) -> None:
        """Computes the node in `tiles`, whatever the size of a block."""
        out = maps(self.node.output)
        inputs = [maps(name) for name in self.node.inputs]
        for call in self._calls:
            call(inputs, (tiles.index, tiles.count, tiles.block, out))


def on_device(graph: Graph, device: torch.device) -> Graph:
    """The graph with every weight and constant on `device`, and calls to torch that make their results there."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return device
        if not isinstance(leaf, torch.Tensor):
            return leaf
        with torch.inference_mode(
            False
        ):  # whose tensors count no writes: weights of theirs would be packed every frame
            return (leaf.clone() if leaf.is_inference() else leaf).to(device)

    nodes = []
    for node in graph.nodes:
        op, e = node.op, node.epilogue
        if isinstance(op, Conv2d):
            op = replace(op, weight=moved(op.weight), bias=moved(op.bias))
        elif isinstance(op, Torch):
            args, kwargs = pytree.tree_map(moved, (op.args, op.kwargs))
            op = replace(op, args=args, kwargs=kwargs)
        vectors = {name: moved(getattr(e, name)) for name in ("scale", "shift", "slope")}
        nodes.append(replace(node, op=op, epilogue=replace(e, **vectors)))
    return graph.with_nodes(nodes)


Place = tuple[torch.Tensor, torch.Tensor, tuple[int, int], torch.Tensor]  # an op's index, count, block and out
Call = Callable[[list[torch.Tensor], Place], None]  # of a node's inputs


def _calls(
    node: Node, graph: Graph, op_of: Callable[[str], Callable[..., None]], algorithm: str, fuses_affine: bool
) -> list[Call]:
    """What is called in turn; `algorithm` is of convolutions, which may take an affine epilogue too."""
    e = node.epilogue
    fuses_affine = fuses_affine and isinstance(node.op, Conv2d) and not node.op.transposed
    if not e.is_affine or fuses_affine or isinstance(node.op, (GroupNorm, ChannelNorm)):
        return [_call(node, e, graph, op_of, algorithm)]
    if node.residual is None and not isinstance(node.op, Conv2d):
        return [_affine(node, graph, op_of("affine"), in_place=False)]
    alone = Epilogue(combine=e.combine)
    return [_call(node, alone, graph, op_of, algorithm), _affine(node, graph, op_of("affine"), in_place=True)]


def _affine(node: Node, graph: Graph, affine: Callable[..., None], in_place: bool) -> Call:
    e, channels = node.epilogue, graph.values[node.output].shape[1]
    device = next(vector.device for vector in (e.scale, e.shift) if vector is not None)
    scale = torch.ones(channels, device=device) if e.scale is None else e.scale
    shift = torch.zeros(channels, device=device) if e.shift is None else e.shift
    return lambda inputs, place: affine(place[-1] if in_place else inputs[0], scale, shift, *place, *_fused(e))


def _fused(epilogue: Epilogue) -> tuple[str | None, torch.Tensor | None, tuple[float, float] | None]:
    return epilogue.activation, epilogue.slope, epilogue.bounds


def _call(node: Node, e: Epilogue, graph: Graph, op_of: Callable[[str], Callable[..., None]], algorithm: str) -> Call:
    """The call of the node's op, with as much of its epilogue as `e` is."""

    def call(name: str, *rest: Any) -> Call:
        """Of an op that reads the node's inputs."""
        op = op_of(name)
        return lambda inputs, place: op(*inputs, *place, *rest)

    match node.op:
        case Conv2d():
            return _conv(node, e, graph, op_of, algorithm)
        case Pool2d(adaptive=True, kind=kind):
            return call(f"adaptive_{kind}_pool2d")
        case Pool2d(kind="max") as op:
            if op.outside != -math.inf:
                raise SparseBlockError(
                    f"compile: {node.title} takes {op.outside:g} for what lies outside of the map, which only plans of "
                    "the cpu backend can; compile it there"
                )
            window, ceil_mode = (op.kernel, op.stride, op.padding, op.dilation), _rounds_up(op, node, graph)
            return call("max_pool2d", *window, ceil_mode)
        case Pool2d() as op:
            window, ceil_mode = (op.kernel, op.stride, op.padding), _rounds_up(op, node, graph)
            return call("avg_pool2d", *window, ceil_mode, op.count_include_pad, op.divisor or None)
        case Interpolate() as op:
            return call("interpolate", op.mode, op.align_corners, op.factors)
        case BlockMoments(cell=cell, order=order):
            return call("block_moments", cell, order)
        case GlobalPool(kind="avg", size=size, cell=cell):
            return call("global_avg_pool2d", size, cell)
        case GlobalPool():
            return call("adaptive_max_pool2d")
        case GroupNorm() as op:
            group_norm, fused = op_of("group_norm"), (op.groups, op.eps, op.cell, *_fused(e))
            return lambda inputs, place: group_norm(*inputs, e.scale, e.shift, *place, *fused)
        case ChannelNorm(kind="layer_norm", eps=eps):
            layer_norm = op_of("layer_norm")
            return lambda inputs, place: layer_norm(*inputs, e.scale, e.shift, *place, eps, *_fused(e))
        case ChannelNorm(kind="normalize", eps=eps):
            return call("normalize", eps)
        case ChannelNorm(kind=kind):
            return call(kind)
        case Pad(mode=mode, padding=(vertical, horizontal), value=value):
            return call("pad", (*horizontal, *vertical), mode, value)
        case Shuffle(kind=kind, factor=factor):
            return call(kind, factor)
    return call("activation" if node.residual is None else e.combine, *_fused(e))


def _conv(node: Node, e: Epilogue, graph: Graph, op_of: Callable[[str], Callable[..., None]], algorithm: str) -> Call:
    op = node.op
    if op.transposed:
        run = op_of("conv_transpose2d")
        window: tuple[Any, ...] = (op.stride, op.padding, _output_padding(op, node, graph), op.dilation, op.groups)
        after: tuple[str, ...] = ()
    else:
        run = op_of("conv2d")
        window = op.stride, op.padding, op.dilation, op.groups
        after = op.padding_mode, algorithm

    affine = {"scale": e.scale, "shift": e.shift} if e.is_affine else {}

    def call(inputs: list[torch.Tensor], place: Place) -> None:
        x, residual = (*inputs, None)[:2]
        run(x, op.weight, op.bias, *place, *window, *_fused(e), residual, e.combine, *after, **affine)

    return call


def _rounds_up(op: Pool2d, node: Node, graph: Graph) -> bool:
    """Whether the size of the result is that of PyTorch's ceil_mode."""
    sizes = zip(graph.values[node.inputs[0]].shape[2:], graph.values[node.output].shape[2:], strict=True)
    window = zip(op.kernel, op.stride, op.padding, op.dilation, strict=True)
    return any(out != pool_extent(size, *axis, False) for (size, out), axis in zip(sizes, window, strict=True))


def _output_padding(op: Conv2d, node: Node, graph: Graph) -> tuple[int, ...]:
    sizes = zip(graph.values[node.inputs[0]].shape[2:], graph.values[node.output].shape[2:], strict=True)
    window = zip(op.weight.shape[2:], op.stride, op.padding, op.dilation, strict=True)
    return tuple(
        out - ((size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for (size, out), (kernel, stride, padding, dilation) in zip(sizes, window, strict=True)
    )
