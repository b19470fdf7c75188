"""Values that lie in others: which inputs of a concatenation are written straight into it, and where parts lie."""

from __future__ import annotations

from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import (
    ChannelNorm,
    Concat,
    Conv2d,
    GlobalPool,
    Graph,
    GroupNorm,
    Interpolate,
    Node,
    Pad,
    Pointwise,
    Pool2d,
    Shuffle,
    Slice,
)
from sparseblock.plan.placement import place

_WRITERS = (Conv2d, Pool2d, Interpolate, GlobalPool, GroupNorm, ChannelNorm, Pad, Shuffle, Pointwise, Concat)


def straight_inputs(graph: Graph, grid: BlockGrid | None) -> dict[str, list[bool]]:
    """For every concatenation, by its output: which of its inputs need no copy.

    A value lives in one place. It goes to the first concatenation that reads it; those that one pointwise node alone
    reads come last, since they may be split (`passes/split_concat.py`). A value made dense stays out of a sparse
    concatenation: it changes everywhere, the concatenation only in active blocks.
    """
    producers, placements = graph.producers(), place(graph, grid)
    concats = [node for node in graph.nodes if isinstance(node.op, Concat)]
    straight: dict[str, list[bool]] = {}
    taken: set[str] = set()
    for node in sorted(concats, key=lambda node: only_reader(graph, node) is not None):
        flags = straight[node.output] = []
        for name in node.inputs:
            maker = producers.get(name)
            fits = maker is not None and isinstance(maker.op, _WRITERS) and name not in taken
            flags.append(fits and placements[name].kind == placements[node.output].kind)
            if flags[-1]:
                taken.add(name)
    return straight


def homes(graph: Graph) -> dict[str, tuple[str, int]]:
    """The value that each slice lies in, and its first channel there."""
    places: dict[str, tuple[str, int]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Slice):
            places[node.output] = (node.inputs[0], node.op.start)
        elif isinstance(node.op, Concat):
            offset = 0
            for name in node.inputs:
                places[name] = (node.output, offset)
                offset += graph.values[name].shape[1]
    return places


def only_reader(graph: Graph, concat: Node) -> Node | None:
    """The pointwise node that alone reads a concatenation as its x, if there is one."""
    readers = graph.readers()[concat.output]
    if concat.output in graph.output_names() or len(readers) != 1 or not isinstance(readers[0].op, Pointwise):
        return None
    # Not a concatenation of single pixels that count for all.
    alike = graph.values[concat.output].shape == graph.values[readers[0].output].shape
    return readers[0] if alike else None
