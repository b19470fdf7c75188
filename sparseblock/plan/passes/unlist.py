"""What is done pixel by pixel to a list of the pixels of maps is done to the maps, block by block, and then listed.

So is the tail of the YOLOs: parts of the channels, sigmoids of scores, and the sides of boxes as means of distributions
(Li et al., Generalized Focal Loss, 2020, equation 5: the softmax of some channels, then their weighted sum).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.utils import _pytree as pytree

from sparseblock.grid import BlockGrid
from sparseblock.plan.axes import called
from sparseblock.plan.ir import (
    ChannelNorm,
    Concat,
    Conv2d,
    Epilogue,
    Graph,
    Node,
    Op,
    Pointwise,
    Ref,
    Slice,
    Torch,
    Value,
)
from sparseblock.plan.passes.concat_views import view_of
from sparseblock.plan.torch_call import concat_of_views

_ACTIVATIONS = ("relu", "sigmoid", "silu", "tanh")
_PARTS = ("chunk", "slice", "split", "split_with_sizes")


def unlist(graph: Graph, grid: BlockGrid | None) -> Graph:
    todo = [node.output for node in graph.nodes]
    while todo:
        name = todo.pop(0)
        if _is_list(name, graph):
            pixels = _List(name, graph)
            lists = pixels.parts() or pixels.activation() or pixels.means()
            if lists:
                graph = pixels.graph_with(lists)
                todo += lists
    return graph


def _is_list(name: str, graph: Graph) -> bool:
    """Whether the value is [1, c, pixels] of maps [1, c, h, w] side by side."""
    node = graph.producers().get(name)
    if node is None or not isinstance(node.op, Torch) or node.op.target is not concat_of_views:
        return False
    _, views, axis = node.op.args
    maps = [graph.values[source] for source in node.inputs]
    flat = [[("reshape", [1, x.shape[1], x.shape[2] * x.shape[3]])] if x.is_map else None for x in maps]
    return views == flat and axis in (2, -1)


class _List:
    """A list and what reads it.

    Each rule gives the lists that what read this one made, by name, as they are made of maps; none where it does not
    apply.
    """

    def __init__(self, name: str, graph: Graph) -> None:
        self.graph = graph
        self.readers = graph.readers()
        self.makers = graph.producers()
        self.node = self.makers[name]
        self.maps = [graph.values[source] for source in self.node.inputs]
        _, self.channels, self.pixels = graph.values[name].shape
        self.new_nodes: list[Node] = []
        self.new_values: list[Value] = []

    def graph_with(self, lists: dict[str, Node]) -> Graph:
        """What is new on maps stands right after them, where their producers may take it up."""
        nodes: list[Node] = []
        made: set[str] = set()
        waiting = list(self.new_nodes)
        for node in self.graph.nodes:
            nodes.append(lists.get(node.output, node))
            made.add(node.output)
            for new in list(waiting):
                if made.issuperset(new.inputs):
                    waiting.remove(new)
                    nodes.append(new)
                    made.add(new.output)
        graph = self.graph.with_nodes(nodes, self.new_values)
        return graph.with_nodes(graph.used_nodes())

    def parts(self) -> dict[str, Node]:
        """Channels of the list become channels of every map."""
        numbers = torch.arange(self.channels).reshape(1, -1, 1).expand(1, -1, self.pixels)  # show what goes where
        found: dict[str, torch.Tensor] = {}
        for node in self.readers[self.node.output]:
            if not _is_call(node, _PARTS):
                return {}
            args, kwargs = pytree.tree_map_only(Ref, lambda _: numbers, (node.op.args, node.op.kwargs))
            result = node.op.target(*args, **kwargs)
            if isinstance(result, torch.Tensor):
                found[node.output] = result
                continue
            for taker in self.readers[node.output]:
                if not _is_call(taker, ("getitem",)):
                    return {}
                found[taker.output] = result[taker.op.args[1]]
        if not all(part.numel() for part in found.values()):
            return {}
        starts = {name: int(part[0, 0, 0]) for name, part in found.items()}
        if not all(torch.equal(part, numbers[:, starts[name] :][:, : part.shape[1]]) for name, part in found.items()):
            return {}
        return {
            name: self._listed(name, [self._slice(x.name, starts[name], part.shape[1]) for x in self.maps])
            for name, part in found.items()
        }

    def activation(self) -> dict[str, Node]:
        nodes = self.readers[self.node.output]
        if len(nodes) != 1 or not _is_call(nodes[0], _ACTIVATIONS):
            return {}
        (node,) = nodes
        epilogue = Epilogue(activation=called(node.op))
        maps = [self._add(x.name, Pointwise(), [x.name], self.channels, epilogue) for x in self.maps]
        return {node.output: self._listed(node.output, maps)}

    def means(self) -> dict[str, Node]:
        """Sides of boxes: channels [sides, bins], turned to [bins, sides], their softmax, its sum by weight."""
        name, nodes = self.node.output, []
        for _ in range(5):
            if len(self.readers[name]) != 1 or (nodes and name in self.graph.output_names()):
                return {}
            nodes += self.readers[name]
            name = nodes[-1].output
        split, turned, softmax, weighted, flat = nodes
        if not _is_softmax(softmax) or not _is_sum(weighted):
            return {}
        bins = weighted.op.weight.shape[1]
        sides = self.channels // bins
        expected = {
            split: ("reshape", [1, sides, bins, self.pixels]),
            turned: ("permute", [0, 2, 1, 3]),
            flat: ("reshape", [1, sides, self.pixels]),
        }
        if any(view_of(node, self.graph) != view for node, view in expected.items()):
            return {}
        every_side = replace(weighted.op, weight=weighted.op.weight.repeat(sides, 1, 1, 1), groups=sides)
        maps = []
        for x in self.maps:
            parts = [self._slice(x.name, side * bins, bins) for side in range(sides)]
            shares = [self._add(x.name, softmax.op, [part], bins) for part in parts]
            maps.append(self._add(x.name, every_side, [self._add(x.name, Concat(), shares, self.channels)], sides))
        return {name: self._listed(name, maps)}

    def _slice(self, name: str, start: int, width: int) -> str:
        """Channels of a map; of a concatenation the map that they are, where they are one."""
        maker, at = self.makers[name], 0
        for part in maker.inputs if isinstance(maker.op, Concat) else ():
            # What torch makes changes everywhere, the concatenation only in active blocks.
            same = part in self.makers and not isinstance(self.makers[part].op, Torch)
            if same and (at, self.graph.values[part].shape[1]) == (start, width):
                return part
            at += self.graph.values[part].shape[1]
        return self._add(name, Slice(start), [name], width)

    def _add(self, like: str, op: Op, inputs: Sequence[str], channels: int, epilogue: Epilogue | None = None) -> str:
        """A node of a map of the size of `like`."""
        value = self.graph.values[like]
        name = f"{self.node.output}__{len(self.new_values)}"
        self.new_values.append(replace(value, name=name, shape=(1, channels, *value.shape[2:])))
        self.new_nodes.append(Node(op, tuple(inputs), name, epilogue or Epilogue(), self.node.origin))
        return name

    def _listed(self, name: str, maps: Sequence[str]) -> Node:
        """The list `name` of `maps`."""
        channels = self.graph.values[name].shape[1]
        views = [[("reshape", [1, channels, x.shape[2] * x.shape[3]])] for x in self.maps]
        op = replace(self.node.op, args=([Ref(source) for source in maps], views, 2))
        return replace(self.node, op=op, inputs=tuple(maps), output=name)


def _is_call(node: Node, names: Sequence[str]) -> bool:
    return isinstance(node.op, Torch) and len(node.inputs) == 1 and called(node.op) in names


def _is_softmax(node: Node) -> bool:
    return isinstance(node.op, ChannelNorm) and node.op.kind == "softmax" and node.epilogue.activation is None


def _is_sum(node: Node) -> bool:
    """Whether it is the weighted sum of every pixel's channels."""
    op, e = node.op, node.epilogue
    alone = len(node.inputs) == 1 and not node.gated and not e.is_affine and e.activation is None
    return (
        isinstance(op, Conv2d)
        and alone
        and (op.bias, op.transposed, op.stride, op.padding) == (None, False, (1, 1), (0, 0))
        and (op.weight.shape[0], *op.weight.shape[2:]) == (1, 1, 1)
    )
