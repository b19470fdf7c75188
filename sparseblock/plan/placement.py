"""Where each node runs: on the active blocks, or on whole planes, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import (
    BlockMoments,
    ChannelNorm,
    Conv2d,
    GlobalPool,
    Graph,
    GroupNorm,
    Interpolate,
    Node,
    Pointwise,
    Pool2d,
    Shuffle,
    Slice,
    Torch,
    Value,
)
from sparseblock.plan.macs import node_macs

TILE, HEAVY_TILE = 4, 2  # pixels of a tile
HEAVY = 1 << 14  # multiply-accumulates of a pixel that keep a kernel busy long enough for the smaller one


@dataclass(frozen=True)
class Placement:
    """How a node runs.

    Attributes:
        kind: "sparse", on the active blocks; "incremental", on what all blocks contribute to a statistic of the whole
            map, of which the active ones are new; "dense", on whole planes.
        reason: why it is not sparse, or what is to be said of it; "" where there is nothing to say.
        block: pixels of a block on the map that the node makes; 0 unless sparse.
    """

    kind: str
    reason: str
    block: int = 0


def place(graph: Graph, grid: BlockGrid | None) -> dict[str, Placement]:
    """The placement of every node, by the name of its output.

    Without a grid every map has tiles of its own: nothing has to be carried over, so all that has a rule is sparse.
    """
    placements: dict[str, Placement] = {}
    for node in graph.nodes:
        sources = [placements[name] for name in node.inputs if name in placements]
        placements[node.output] = _place(node, graph, sources, grid)
    return placements


def _place(node: Node, graph: Graph, sources: list[Placement], grid: BlockGrid | None) -> Placement:
    if isinstance(node.op, Slice) and sources:
        return sources[0]  # a view of what its producer left
    if isinstance(node.op, Torch):
        return Placement("dense", node.op.reason)
    if grid is None:
        return Placement("sparse", "", _tile(node, graph))
    if isinstance(node.op, GlobalPool):
        if sources and sources[0].kind == "dense":
            return Placement("dense", "of a map that runs dense")
        return Placement("incremental", "of all blocks, from what each contributes; active ones contribute anew")
    placement = _on_grid(graph.values[node.output], grid)
    if placement.kind != "sparse" and sources and all(source.kind == "incremental" for source in sources):
        return Placement("incremental", "on a small map that depends on all blocks")
    return placement


def block_of(value: Value, grid: BlockGrid | None) -> int | None:
    """Pixels of a block on the map `value`; None where there is no grid, or it does not carry over."""
    return None if grid is None else _on_grid(value, grid).block or None


def _tile(node: Node, graph: Graph) -> int:
    """Pixels of a tile where there is no grid: the smallest that costs a kernel at most a tenth of its speed."""
    _, _, h, w = graph.values[node.output].shape
    return TILE if node_macs(node, graph) < HEAVY * h * w else HEAVY_TILE


def _on_grid(value: Value, grid: BlockGrid) -> Placement:
    if value.stride is None:
        return Placement("dense", "its rows and columns are not the same whole part of the frame's")
    try:
        return Placement("sparse", "", grid.block_at(value.stride, *value.shape[2:]))
    except SparseBlockError as error:
        return Placement("dense", str(error))


def reads_within_block(node: Node, name: str, graph: Graph, grid: BlockGrid | None) -> bool:
    """Whether a sparse `node` reads of its input `name` only what lies in the block that it writes.

    Then nothing outside of the active blocks is needed of that input.
    """
    block_in = block_of(graph.values[name], grid)
    block_out = block_of(graph.values[node.output], grid)
    if block_in is None or block_out is None:
        return False
    op = node.op
    if isinstance(op, BlockMoments):
        return op.cell == (block_in, block_in) and block_out == 1
    if isinstance(op, GroupNorm):
        return name == node.inputs[0] and block_in == block_out
    if isinstance(op, Pointwise) or (isinstance(op, Conv2d) and name == node.residual and name != node.inputs[0]):
        return block_in == block_out
    match op:
        case Shuffle(kind="pixel_shuffle", factor=factor):
            return block_out == block_in * factor
        case Shuffle(kind="pixel_unshuffle", factor=factor):
            return block_in == block_out * factor
        case Shuffle() | ChannelNorm():
            return block_in == block_out
    if isinstance(op, Interpolate):
        factor = Fraction(block_out, block_in)
        # Powers of two: the source's place, output * scale, is then exact in float32.
        exact = factor.denominator == 1 and factor.numerator & (factor.numerator - 1) == 0
        sizes = zip(graph.values[name].shape[2:], graph.values[node.output].shape[2:], strict=True)
        given = op.factors is None or op.factors == (factor, factor)
        return op.mode == "nearest" and exact and given and all(a * factor == b for a, b in sizes)
    if isinstance(op, Conv2d) and op.padding_mode != "zeros":
        return False
    if not isinstance(op, (Conv2d, Pool2d)) or op.padding != (0, 0) or (isinstance(op, Pool2d) and op.adaptive):
        return False
    kernel = op.weight.shape[2:] if isinstance(op, Conv2d) else op.kernel
    reach = max(d * (k - 1) + 1 for k, d in zip(kernel, op.dilation, strict=True))
    stride = min(op.stride)
    if isinstance(op, Conv2d) and op.transposed:
        return reach <= stride and block_out == block_in * stride
    return reach <= stride and block_in == block_out * stride
