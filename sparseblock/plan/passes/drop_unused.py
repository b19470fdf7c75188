"""Nodes whose values reach no output are dropped."""

from __future__ import annotations

from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import Graph


def drop_unused(graph: Graph, grid: BlockGrid) -> Graph:
    return graph.with_nodes(graph.used_nodes())
