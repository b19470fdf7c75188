"""Which memory each value lives in: own planes, slices of a concatenation's plane, shared memory.

A value keeps its own plane from frame to frame where somebody may look outside of the active blocks: a reader with a
halo, a dense reader, a gate, the user. A value that sparse nodes read within their own block only is *transient*: it is
dead before the frame is over, so such values share one piece of memory by lifetime. A node that adds a dying value, or
does pointwise work on one, writes its result in its place. What only one chain touches has no memory but the scratch of
the thread that takes a piece through the chain.

Of a value that is read with a small halo only the *rims* of its blocks need to last: the pixels along their edges that
are seen from their neighbours. Where that takes less, it is transient too, and its rims have planes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sparseblock.cache import PlaneSpec, Rims, total_bytes
from sparseblock.grid import BlockGrid
from sparseblock.plan.arena import Span, assign_offsets
from sparseblock.plan.chains import Chain
from sparseblock.plan.concats import homes
from sparseblock.plan.ir import BlockMoments, ChannelNorm, Conv2d, Graph, Node, Pointwise, Torch
from sparseblock.plan.padding import trailing
from sparseblock.plan.placement import Placement, reads_within_block
from sparseblock.plan.reach import halo

SMALL = 4  # rims are kept where they are at most a fourth of their map: copying them is then next to nothing


@dataclass(frozen=True)
class Tree:
    """Values that share one piece of memory: a root and the channel slices in it.

    Attributes:
        root: the value that is the whole.
        members: every value in it, parents before children.
        border: zero pixels around it, for the widest padding among its readers that read it; 0 where none looks outside
            of the blocks that it writes.
        transient: whether it is dead at the end of the frame, but for its rims.
        first, last: places in the graph's order of the first writer and the last reader.
        rims: what lasts of a transient value, and the planes for it.
    """

    root: str
    members: tuple[str, ...]
    border: int
    transient: bool
    first: int
    last: int
    rims: Rims | None = None
    planes_of_rims: tuple[PlaneSpec, ...] = ()


def assign_planes(
    graph: Graph,
    grid: BlockGrid | None,
    placements: dict[str, Placement],
    dtype: torch.dtype = torch.float32,
    chains: Sequence[Chain] = (),
    align: int = 1,
    rims: bool = True,
) -> tuple[PlaneSpec, ...]:
    """The planes of a cache for this graph; a value that only torch calls touch has none, any other one of its name.

    All are of `dtype` but the frame's, which lies where the user's float32 tensor does, and those of moments. Pixels of
    more than `align` bytes of channels begin at multiples of it.

    Args:
        rims: whether what runs the graph can keep rims; they are kept where all planes then take less.
    """
    parents = homes(graph)
    trees = _trees(graph, grid, placements, parents)
    dtypes = {node.output: torch.float32 if isinstance(node.op, BlockMoments) else dtype for node in graph.nodes}
    specs = _specs(graph, trees, parents, dtypes, chains, align)
    if not rims or grid is None:
        return specs
    trees = [_with_rims(tree, graph, grid, placements, dtypes) for tree in trees]
    return min(specs, _specs(graph, trees, parents, dtypes, chains, align), key=total_bytes)


def _specs(
    graph: Graph,
    trees: list[Tree],
    parents: dict[str, tuple[str, int]],
    dtypes: dict[str, torch.dtype],
    chains: Sequence[Chain],
    align: int,
) -> tuple[PlaneSpec, ...]:
    specs = [PlaneSpec(name, *graph.values[name].shape[1:], external=True) for name in graph.inputs]
    scratch = _scratch(graph, trees, chains, dtypes)
    wholes = {tree.root: _whole(tree, graph, dtypes[tree.root], align) for tree in trees}
    shared = _share(graph, [tree for tree in trees if tree.transient and tree.root not in scratch], chains, wholes)
    for tree in trees:
        root = tree.root
        specs.append(replace(wholes[root], shared=shared.get(root), scratch=scratch.get(root), rims=tree.rims))
        for name in tree.members[1:]:
            parent, offset = parents[name]
            specs.append(PlaneSpec(name, *graph.values[name].shape[1:], 0, parent, offset, dtype=dtypes[name]))
        specs += tree.planes_of_rims
    return tuple(specs)


def _whole(tree: Tree, graph: Graph, dtype: torch.dtype, align: int) -> PlaneSpec:
    """The plane of a tree's root, wherever it lies."""
    c, h, w = graph.values[tree.root].shape[1:]
    pixel = c * dtype.itemsize
    pitch = -(-pixel // align) * align // dtype.itemsize if pixel > align and pixel % align else None
    return PlaneSpec(tree.root, c, h, w, tree.border, dtype=dtype, pitch=pitch)


def _trees(
    graph: Graph, grid: BlockGrid | None, placements: dict[str, Placement], parents: dict[str, tuple[str, int]]
) -> list[Tree]:
    readers, producers = graph.readers(), graph.producers()
    members: dict[str, list[str]] = {}
    with_plane = [
        name
        for name, value in graph.values.items()
        if name not in graph.inputs and value.is_map and _needs_plane(producers[name], readers[name])
    ]
    for name in sorted(with_plane, key=lambda name: _depth(name, parents)):
        root = name
        while root in parents:
            root = parents[root][0]
        members.setdefault(root, []).append(name)
    position = {node.output: i for i, node in enumerate(graph.nodes)}
    trees = []
    for root, names in members.items():
        uses = [(reader, name) for name in names for reader in readers[name] if not reader.is_view]
        places = [position[name] for name in names] + [position[reader.output] for reader, _ in uses]
        transient = _is_free(graph, names, placements) and all(
            reads_within_block(reader, name, graph, grid) for reader, name in uses
        )
        border = 0 if transient else max((_padding(reader, name, graph) for reader, name in uses), default=0)
        trees.append(Tree(root, tuple(names), border, transient, min(places), max(places)))
    return trees


def _is_free(graph: Graph, names: Sequence[str], placements: dict[str, Placement]) -> bool:
    """Whether only nodes that run on the active blocks read these values, and none that write or read them is gated."""
    readers, producers = graph.readers(), graph.producers()
    uses = [reader for name in names for reader in readers[name] if not reader.is_view]
    return (
        graph.output_names().isdisjoint(names)
        and all(placements[reader.output].kind == "sparse" and not reader.gated for reader in uses)
        and not any(producers[name].gated for name in names)
    )


def _with_rims(
    tree: Tree, graph: Graph, grid: BlockGrid, placements: dict[str, Placement], dtypes: dict[str, torch.dtype]
) -> Tree:
    """The tree with rims where they can stand for its map and are small: one value, written and read block by block."""
    name, producer = tree.root, graph.producers()[tree.root]
    readers = graph.readers()[name]
    if tree.transient or len(tree.members) > 1 or placements[producer.output].kind != "sparse":
        return tree
    if not _is_free(graph, [name], placements):
        return tree
    block = placements[producer.output].block
    c, h, w = graph.values[name].shape[1:]
    rows, cols = -(-h // block), -(-w // block)
    if (rows, cols) != (grid.rows, grid.cols):
        return tree  # blocks at the edge look at a map that ends before them
    sides = []
    for reader in readers:
        blocks = (block, placements[reader.output].block)
        for place in (place for place, source in enumerate(reader.inputs) if source == name):
            sides.append((*halo(reader, place, graph, 0, *blocks), *halo(reader, place, graph, 1, *blocks)))
    above, below, left, right = seen = tuple(map(max, zip(*sides, strict=True))) if sides else (0, 0, 0, 0)
    if not any(seen) or max(seen) > block:
        return tree
    rims = Rims(f"{name}:rows", f"{name}:cols", seen)
    shapes = {rims.rows: (rows * (above + below), w), rims.cols: (cols * (left + right), h)}
    specs = tuple(PlaneSpec(kept, c, *shape, dtype=dtypes[name]) for kept, shape in shapes.items() if all(shape))
    if SMALL * sum(spec.size for spec in specs) > PlaneSpec(name, c, h, w, dtype=dtypes[name]).size:
        return tree
    return replace(tree, transient=True, rims=rims, planes_of_rims=specs)


def _needs_plane(producer: Node, readers: list[Node]) -> bool:
    return not all(isinstance(node.op, Torch) for node in (producer, *readers))


def _depth(name: str, parents: dict[str, tuple[str, int]]) -> int:
    return 1 + _depth(parents[name][0], parents) if name in parents else 0


def _padding(reader: Node, name: str, graph: Graph) -> int:
    op = reader.op
    # Pools and resizes never read the border; a transposed convolution has no padding on its input.
    if not isinstance(op, Conv2d) or op.transposed or name != reader.inputs[0] or op.padding_mode != "zeros":
        return 0
    around = zip(op.padding, trailing(reader, graph), op.dilation, strict=True)
    # Taps of a window with dilation that lie outside are left out, or an edge's windows copied: it reads no border.
    return max(max(before, after) if dilation == 1 else 0 for before, after, dilation in around)


def _scratch(
    graph: Graph, trees: list[Tree], chains: Sequence[Chain], dtypes: dict[str, torch.dtype]
) -> dict[str, int]:
    """The byte of a thread's scratch at which a piece lies of each value that only one chain touches."""
    offsets: dict[str, int] = {}
    for chain in chains:
        inner = [
            tree
            for tree in trees
            if tree.transient and len(tree.members) == 1 and chain.first <= tree.first and tree.last <= chain.last
        ]
        spans = []
        for tree in inner:
            root = tree.root
            piece = PlaneSpec(root, graph.values[root].shape[1], *chain.pieces[root], dtype=dtypes[root])
            spans.append(Span(piece.size, tree.first, tree.last))
        offsets |= zip((tree.root for tree in inner), assign_offsets(spans), strict=True)
    return offsets


def _share(graph: Graph, trees: list[Tree], chains: Sequence[Chain], wholes: dict[str, PlaneSpec]) -> dict[str, int]:
    """The byte of shared memory at which each of these transient roots lies."""
    groups: list[list[Tree]] = []
    for tree in sorted(trees, key=lambda tree: tree.first):
        before = next((group for group in groups if _in_place(graph, group[-1], tree, chains)), None)
        if before is None:
            groups.append([tree])
        else:
            before.append(tree)
    spans = []
    for group in groups:
        size = wholes[group[0].root].size
        spans.append(Span(size, _moments(group[0].first, chains)[0], _moments(group[-1].last, chains)[1]))
    offsets = assign_offsets(spans)
    return {tree.root: at for group, at in zip(groups, offsets, strict=True) for tree in group}


def _moments(place: int, chains: Sequence[Chain]) -> tuple[int, int]:
    """When the node at `place` runs. All nodes of a chain run at once: pieces are at different ones of them."""
    return next(((chain.first, chain.last) for chain in chains if chain.first <= place <= chain.last), (place, place))


def _in_place(graph: Graph, dying: Tree, tree: Tree, chains: Sequence[Chain]) -> bool:
    """Whether the node that makes `tree` may write it over `dying`, which it reads last, pixel by pixel."""
    writer = graph.nodes[tree.first]
    if writer.output != tree.root or dying.last != tree.first:
        return False
    start = _moments(tree.first, chains)[0]
    if dying.rims is not None and any(dying.root in node.inputs for node in graph.nodes[start : tree.first]):
        return False  # the next piece of the chain sees what this one would have overwritten
    if graph.values[dying.root].shape != graph.values[tree.root].shape or dying.border != tree.border:
        return False
    read = {name for name in writer.inputs if name in dying.members}
    if isinstance(writer.op, Conv2d) and writer.inputs[0] in read:
        return False  # other output channels still need it
    return isinstance(writer.op, (Conv2d, ChannelNorm, Pointwise)) and read == {dying.root}
