"""Which memory each value lives in: own planes, slices of a concatenation's plane, shared memory.

A value keeps its own plane from frame to frame where somebody may look outside of the active blocks: a reader with a
halo, a dense reader, a gate, the user. A value that sparse nodes read within their own block only is *transient*: it is
dead before the frame is over, so such values share one piece of memory by lifetime. A node that adds a dying value, or
does pointwise work on one, writes its result in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparseblock.cache import PlaneSpec
from sparseblock.grid import BlockGrid
from sparseblock.plan.arena import Span, assign_offsets
from sparseblock.plan.ir import BlockMoments, Concat, Conv2d, Graph, Node, Pointwise, Slice, Torch
from sparseblock.plan.padding import trailing
from sparseblock.plan.placement import Placement, reads_within_block


@dataclass(frozen=True)
class Tree:
    """Values that share one piece of memory: a root and the channel slices in it.

    Attributes:
        root: the value that is the whole.
        members: every value in it, parents before children.
        border: zero pixels around it, for the widest padding among its readers.
        transient: whether it is dead at the end of the frame.
        first, last: places in the graph's order of the first writer and the last reader.
    """

    root: str
    members: tuple[str, ...]
    border: int
    transient: bool
    first: int
    last: int


def assign_planes(
    graph: Graph, grid: BlockGrid | None, placements: dict[str, Placement], dtype: torch.dtype = torch.float32
) -> tuple[PlaneSpec, ...]:
    """The planes of a cache for this graph; a value that only torch calls touch has none, any other one of its name.

    All are of `dtype` but the frame's, which lies where the user's float32 tensor does, and those of moments.
    """
    homes = _homes(graph)
    trees = _trees(graph, grid, placements, homes)
    specs = [PlaneSpec(name, *graph.values[name].shape[1:], external=True) for name in graph.inputs]
    dtypes = {node.output: torch.float32 if isinstance(node.op, BlockMoments) else dtype for node in graph.nodes}
    shared = _share(graph, [tree for tree in trees if tree.transient], dtypes)
    for tree in trees:
        for name in tree.members:
            parent, offset = homes.get(name, (None, 0))
            border = tree.border if parent is None and not tree.transient else 0
            shape = graph.values[name].shape[1:]
            place = {"shared": shared.get(name), "dtype": dtypes[name]}
            specs.append(PlaneSpec(name, *shape, border, parent, offset, **place))
    return tuple(specs)


def _homes(graph: Graph) -> dict[str, tuple[str, int]]:
    """The value that each slice lies in, and its first channel there."""
    homes: dict[str, tuple[str, int]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Slice):
            homes[node.output] = (node.inputs[0], node.op.start)
        elif isinstance(node.op, Concat):
            offset = 0
            for name in node.inputs:
                homes[name] = (node.output, offset)
                offset += graph.values[name].shape[1]
    return homes


def _trees(
    graph: Graph, grid: BlockGrid | None, placements: dict[str, Placement], homes: dict[str, tuple[str, int]]
) -> list[Tree]:
    readers, producers = graph.readers(), graph.producers()
    members: dict[str, list[str]] = {}
    with_plane = [
        name
        for name, value in graph.values.items()
        if name not in graph.inputs and value.is_map and _needs_plane(producers[name], readers[name])
    ]
    for name in sorted(with_plane, key=lambda name: _depth(name, homes)):
        root = name
        while root in homes:
            root = homes[root][0]
        members.setdefault(root, []).append(name)
    position = {node.output: i for i, node in enumerate(graph.nodes)}
    outputs = graph.output_names()
    trees = []
    for root, names in members.items():
        uses = [(reader, name) for name in names for reader in readers[name] if not reader.is_view]
        places = [position[name] for name in names] + [position[reader.output] for reader, _ in uses]
        border = max((_padding(reader, name, graph) for reader, name in uses), default=0)
        transient = outputs.isdisjoint(names) and all(
            placements[reader.output].kind == "sparse"
            and reads_within_block(reader, name, graph, grid)
            and not reader.gated
            for reader, name in uses
        )
        transient &= not any(producers[name].gated for name in names)
        trees.append(Tree(root, tuple(names), border, transient, min(places), max(places)))
    return trees


def _needs_plane(producer: Node, readers: list[Node]) -> bool:
    return not all(isinstance(node.op, Torch) for node in (producer, *readers))


def _depth(name: str, homes: dict[str, tuple[str, int]]) -> int:
    return 1 + _depth(homes[name][0], homes) if name in homes else 0


def _padding(reader: Node, name: str, graph: Graph) -> int:
    op = reader.op
    # Pools and resizes never read the border; a transposed convolution has no padding on its input.
    if not isinstance(op, Conv2d) or op.transposed or name != reader.inputs[0] or op.padding_mode != "zeros":
        return 0
    return max(*op.padding, *trailing(reader, graph))


def _share(graph: Graph, trees: list[Tree], dtypes: dict[str, torch.dtype]) -> dict[str, int]:
    """The byte of shared memory at which each of these transient roots lies."""
    groups: list[list[Tree]] = []
    for tree in sorted(trees, key=lambda tree: tree.first):
        before = next((group for group in groups if _in_place(graph, group[-1], tree)), None)
        if before is None:
            groups.append([tree])
        else:
            before.append(tree)
    spans = []
    for group in groups:
        root = group[0].root
        size = PlaneSpec(root, *graph.values[root].shape[1:], dtype=dtypes[root]).size
        spans.append(Span(size, group[0].first, group[-1].last))
    offsets = assign_offsets(spans)
    return {tree.root: at for group, at in zip(groups, offsets, strict=True) for tree in group}


def _in_place(graph: Graph, dying: Tree, tree: Tree) -> bool:
    """Whether the node that makes `tree` may write it over `dying`, which it reads last, pixel by pixel."""
    writer = graph.nodes[tree.first]
    if writer.output != tree.root or dying.last != tree.first:
        return False
    if graph.values[dying.root].shape != graph.values[tree.root].shape:
        return False
    read = {name for name in writer.inputs if name in dying.members}
    if isinstance(writer.op, Conv2d) and writer.inputs[0] in read:
        return False  # other output channels still need it
    return isinstance(writer.op, (Conv2d, Pointwise)) and read == {dying.root}
