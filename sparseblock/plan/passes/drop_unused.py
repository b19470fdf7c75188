"""Nodes whose values reach no output are dropped."""

from __future__ import annotations

from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import Graph


def drop_unused(graph: Graph, grid: BlockGrid) -> Graph:
    needed, kept = graph.output_names(), []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return graph.with_nodes(kept[::-1])
