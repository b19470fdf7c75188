"""A concatenation of views of maps becomes one call, which reads the maps where they lie.

Detectors' heads make a list of each map's pixels and put the lists of all levels together. Call by call every map is
copied twice, once so that torch's view finds it as it was captured. The view that RetinaNet's heads make, with the
channels last, is how a plane lies anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.grid import BlockGrid
from sparseblock.plan.axes import VIEWS, called
from sparseblock.plan.ir import Graph, Node, Ref, Torch
from sparseblock.plan.torch_call import View, concat_of_views

_REASON = "what it makes is no float32 map [1, c, h, w]"


def concat_views(graph: Graph, grid: BlockGrid | None) -> Graph:
    producers, readers, outputs = graph.producers(), graph.readers(), graph.output_names()
    alone = {name: node for name, node in producers.items() if len(readers[name]) == 1 and name not in outputs}
    nodes = []
    for node in graph.nodes:
        if isinstance(node.op, Torch) and called(node.op) == "cat":
            node = _read_in_place(node, graph, alone)
        nodes.append(node)
    graph = graph.with_nodes(nodes)
    return graph.with_nodes(graph.used_nodes())


def _read_in_place(concat: Node, graph: Graph, alone: Mapping[str, Node]) -> Node:
    """`concat`, or the call of all that it concatenates."""
    tensors, axis = (*concat.op.args, *concat.op.kwargs.values(), 0)[:2]
    if not all(isinstance(tensor, Ref) and graph.values[tensor.name].dtype == torch.float32 for tensor in tensors):
        return concat
    chains = [_chain(tensor.name, graph, alone) for tensor in tensors]
    if not any(views and graph.values[name].is_map for name, views in chains):
        return concat
    op = Torch(concat_of_views, ([Ref(name) for name, _ in chains], [views for _, views in chains], axis), {}, _REASON)
    return replace(concat, op=op, inputs=tuple(name for name, _ in chains))


def _chain(name: str, graph: Graph, alone: Mapping[str, Node]) -> tuple[str, list[View]]:
    """The value that `name` is a view of, and by which views."""
    views: list[View] = []
    while (node := alone.get(name)) is not None and (view := view_of(node, graph)) is not None:
        views.insert(0, view)
        (name,) = node.inputs
    return name, views


def view_of(node: Node, graph: Graph) -> View | None:
    """What a call that only looks at its input in another way does."""
    if not isinstance(node.op, Torch) or len(node.inputs) != 1:
        return None
    name, (source, result) = called(node.op), (graph.values[value] for value in (node.inputs[0], node.output))
    if source.dtype != torch.float32 or result.dtype != torch.float32:
        return None
    if name in VIEWS:
        return "reshape", list(result.shape)
    axes = list(range(len(source.shape)))
    given: list[Any] = [
        leaf for leaf in pytree.tree_leaves((node.op.args, node.op.kwargs)) if not isinstance(leaf, Ref)
    ]
    match name:
        case "permute":
            return "permute", [axes[axis] for axis in given]
        case "transpose":
            first, second = given
            axes[first], axes[second] = axes[second], axes[first]
            return "permute", axes
    return None
