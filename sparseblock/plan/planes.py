"""Which memory each value lives in: own planes, slices of a concatenation's plane, shared planes.

A value keeps its own plane from frame to frame where somebody may look outside of the active blocks: a reader with a
halo, a dense reader, the user. A value that sparse nodes read within their own block only is *transient*: it is dead
before the frame is over, so such values share planes by lifetime.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparseblock.cache import PlaneSpec
from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import Concat, Conv2d, Graph, Node, Slice, Torch
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


def assign_planes(graph: Graph, grid: BlockGrid, placements: dict[str, Placement]) -> tuple[PlaneSpec, ...]:
    """The planes of a cache for this graph; a value that only torch calls touch has none, any other one of its name."""
    homes = _homes(graph)
    trees = _trees(graph, grid, placements, homes)
    frame = graph.values[graph.input]
    specs = [PlaneSpec(frame.name, *frame.shape[1:], external=True)]
    transient = sorted((tree for tree in trees if tree.transient), key=lambda tree: tree.first)
    buffers, shared = _share(graph, transient)
    specs += buffers
    for tree in trees:
        for name in tree.members:
            if name in homes:
                parent, offset = homes[name]
            else:
                parent, offset = shared.get(name), 0
            border = tree.border if parent is None else 0
            specs.append(PlaneSpec(name, *graph.values[name].shape[1:], border=border, parent=parent, offset=offset))
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
    graph: Graph, grid: BlockGrid, placements: dict[str, Placement], homes: dict[str, tuple[str, int]]
) -> list[Tree]:
    readers = graph.readers()
    members: dict[str, list[str]] = {}
    with_plane = [
        name
        for name, value in graph.values.items()
        if name != graph.input and value.is_map and _needs_plane(graph.producers()[name], readers[name])
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
        border = max((_padding(reader, name) for reader, name in uses), default=0)
        transient = outputs.isdisjoint(names) and all(
            placements[reader.output].kind == "sparse" and reads_within_block(reader, name, graph, grid)
            for reader, name in uses
        )
        trees.append(Tree(root, tuple(names), border, transient, min(places), max(places)))
    return trees


def _needs_plane(producer: Node, readers: list[Node]) -> bool:
    return not all(isinstance(node.op, Torch) for node in (producer, *readers))


def _depth(name: str, homes: dict[str, tuple[str, int]]) -> int:
    return 1 + _depth(homes[name][0], homes) if name in homes else 0


def _padding(reader: Node, name: str) -> int:
    op = reader.op
    # Pools and resizes never read the border; a transposed convolution has no padding on its input.
    return max(op.padding) if isinstance(op, Conv2d) and not op.transposed and name == reader.inputs[0] else 0


def _share(graph: Graph, trees: list[Tree]) -> tuple[list[PlaneSpec], dict[str, str]]:
    """Shared planes, and which of them each transient root lies in. Trees that live at the same time never share."""
    ends: list[int] = []  # per plane: where its last value so far dies
    sizes: list[tuple[int, int, int]] = []  # c, h, w
    chosen: dict[str, int] = {}
    for tree in trees:
        c, *size = graph.values[tree.root].shape[1:]
        free = [i for i, (_, *other) in enumerate(sizes) if other == size and ends[i] < tree.first]
        # The narrowest that is wide enough, else the widest, which is widened.
        best = min(free, key=lambda i: (sizes[i][0] < c, abs(sizes[i][0] - c)), default=None)
        if best is None:
            best = len(sizes)
            sizes.append((c, *size))
            ends.append(tree.last)
        sizes[best] = (max(c, sizes[best][0]), *size)
        ends[best] = tree.last
        chosen[tree.root] = best
    specs = [PlaneSpec(f"shared.{i}", *size) for i, size in enumerate(sizes)]
    return specs, {root: f"shared.{i}" for root, i in chosen.items()}
