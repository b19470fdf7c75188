"""Concat inputs that cannot be written in place get a copy that can."""

from __future__ import annotations

from dataclasses import replace

from sparseblock.grid import BlockGrid
from sparseblock.plan.concats import straight_inputs
from sparseblock.plan.ir import Concat, Graph, Node, Pointwise, Value


def copy_concat(graph: Graph, grid: BlockGrid) -> Graph:
    straight = straight_inputs(graph, grid)
    nodes: list[Node] = []
    copies: list[Value] = []
    for node in graph.nodes:
        if isinstance(node.op, Concat):
            inputs = list(node.inputs)
            for i, name in enumerate(inputs):
                if not straight[node.output][i]:
                    copy = replace(
                        graph.values[name], name=f"{node.output}__{i}", stride=graph.values[node.output].stride
                    )
                    copies.append(copy)
                    nodes.append(Node(Pointwise(), (name,), copy.name, origin=node.origin))
                    inputs[i] = copy.name
            node = replace(node, inputs=tuple(inputs))
        nodes.append(node)
    return graph.with_nodes(nodes, copies)
