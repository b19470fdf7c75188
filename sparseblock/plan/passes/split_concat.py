"""A pointwise node over a concatenation is done part by part, where that saves passes over memory.

A part whose producer can absorb the work is then written once, finished; a part that would have to be copied into the
concatenation is read where it lies. Parts that neither helps stay together, as a smaller concatenation and one node.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sparseblock.grid import BlockGrid
from sparseblock.plan.absorb import absorb
from sparseblock.plan.concats import only_reader, straight_inputs
from sparseblock.plan.ir import Concat, Graph, Node, Pointwise, Slice, Value


def split_concat(graph: Graph, grid: BlockGrid) -> Graph:
    concats = [node.output for node in graph.nodes if isinstance(node.op, Concat)]
    for name in concats:
        graph = _split(graph, grid, graph.producers()[name])
    return graph


def _split(graph: Graph, grid: BlockGrid, concat: Node) -> Graph:
    pointwise = only_reader(graph, concat)
    if pointwise is None:
        return graph
    parts = _Parts(graph, concat, pointwise)
    straight = straight_inputs(graph, grid)[concat.output]
    absorbed = [parts.absorbed(i) for i in range(len(concat.inputs))]
    if not any(absorbed) and all(straight):
        return graph
    i = 0
    while i < len(concat.inputs):
        last = i + 1
        if absorbed[i] is not None:
            parts.take(i, absorbed[i])
        else:
            while last < len(straight) and straight[i] and straight[last] and absorbed[last] is None:
                last += 1
            parts.keep(i, last)
        i = last
    return parts.result()


@dataclass
class _Parts:
    """The nodes that stand for `pointwise` over `concat`."""

    graph: Graph
    concat: Node
    pointwise: Node
    nodes: list[Node] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    replaced: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.widths = [self.graph.values[name].shape[1] for name in self.concat.inputs]
        self.producers, self.readers = self.graph.producers(), self.graph.readers()
        self.replaced += [self.concat, self.pointwise]

    def absorbed(self, i: int) -> Node | None:
        """Input i made by its producer with the pointwise work in its epilogue, if the producer can."""
        name = self.concat.inputs[i]
        producer = self.producers.get(name)
        if producer is None or len(self.readers[name]) != 1 or name in self.graph.output_names():
            return None
        return absorb(producer, self._pointwise(name, i, i + 1))

    def take(self, i: int, node: Node) -> None:
        self._slice_residual(i, i + 1)
        self._add(node, self.widths[i])
        self.replaced.append(self.producers[self.concat.inputs[i]])

    def keep(self, first: int, last: int) -> None:
        """Inputs [first, last) as one pointwise node, over a concatenation where they are several."""
        source = self.concat.inputs[first]
        if last - first > 1:
            source = f"{self.concat.output}__{first}"
            inputs = self.concat.inputs[first:last]
            self.nodes.append(Node(Concat(), inputs, source, origin=self.concat.origin))
            self.values.append(self._value(source, sum(self.widths[first:last])))
        self._slice_residual(first, last)
        self._add(self._pointwise(source, first, last), sum(self.widths[first:last]))

    def result(self) -> Graph:
        joined = Node(Concat(), tuple(self.pieces), self.pointwise.output, origin=self.pointwise.origin)
        nodes: list[Node] = []
        for node in self.graph.nodes:
            if node is self.pointwise:
                nodes += [*self.nodes, joined]
            elif node not in self.replaced:
                nodes.append(node)
        return self.graph.with_nodes(nodes, self.values)

    def _pointwise(self, source: str, first: int, last: int) -> Node:
        start, stop = sum(self.widths[:first]), sum(self.widths[:last])
        inputs = (source,) if self._residual is None else (source, self._part_of_residual(first))
        epilogue = self.pointwise.epilogue.channels(start, stop)
        return Node(Pointwise(), inputs, self._name("part", first), epilogue, self.pointwise.origin)

    def _slice_residual(self, first: int, last: int) -> None:
        name = self._part_of_residual(first)
        if name != self._residual:
            self.nodes.append(
                Node(Slice(sum(self.widths[:first])), (self._residual,), name, origin=self.pointwise.origin)
            )
            residual = self.graph.values[self._residual]
            width = sum(self.widths[first:last])
            self.values.append(replace(residual, name=name, shape=(1, width, *residual.shape[2:])))

    def _add(self, node: Node, width: int) -> None:
        self.nodes.append(node)
        self.values.append(self._value(node.output, width))
        self.pieces.append(node.output)

    def _value(self, name: str, width: int) -> Value:
        whole = self.graph.values[self.pointwise.output]
        return replace(whole, name=name, shape=(1, width, *whole.shape[2:]))

    def _part_of_residual(self, first: int) -> str | None:
        """The name of its channels from input `first` on; its own where one channel counts for all."""
        if self._residual is None or self.graph.values[self._residual].shape[1] != sum(self.widths):
            return self._residual
        return self._name("residual", first)

    @property
    def _residual(self) -> str | None:
        return next((name for name in self.pointwise.inputs if name != self.concat.output), None)

    def _name(self, what: str, first: int) -> str:
        return f"{self.pointwise.output}__{what}{first}"
