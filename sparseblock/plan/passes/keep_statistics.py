"""Statistics of a whole map are made of what each of its blocks contributes, which a plane keeps from frame to frame.

Only active blocks contribute anew. The total is then taken over all of them, in one order: it is the dense statistic of
the map as it is now, whichever blocks were active when.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch

from sparseblock.grid import BlockGrid, cell_extent
from sparseblock.plan.ir import BlockMoments, GlobalPool, Graph, GroupNorm, Node, Op, Pair, Pool2d, Value
from sparseblock.plan.placement import place

DENSE_CELL = 16  # pixels of a cell of a map that has no blocks: enough cells for all threads


def keep_statistics(graph: Graph, grid: BlockGrid | None) -> Graph:
    placements = place(graph, grid)
    nodes: list[Node] = []
    made: dict[tuple[str, Op], Value] = {}
    for node in graph.nodes:
        if isinstance(node.op, (GlobalPool, GroupNorm)) and node.op.cell is None:
            x = graph.values[node.inputs[0]]
            sparse = grid is not None and placements[x.name].kind == "sparse"
            cell = (placements[x.name].block if sparse else DENSE_CELL,) * 2
            op = _contribution(node.op, cell)
            if (x.name, op) not in made:
                extent = [cell_extent(*axis) for axis in zip(x.shape[2:], cell, strict=True)]
                channels = x.shape[1] * (op.order if isinstance(op, BlockMoments) else 1)
                cells = Value(
                    f"{node.output}__cells",
                    (1, channels, *extent),
                    torch.float32,
                    Fraction(grid.block_size) if sparse else None,
                )
                made[x.name, op] = cells
                nodes.append(Node(op, (x.name,), cells.name, origin=node.origin))
            cells = made[x.name, op]
            inputs = (x.name, cells.name) if isinstance(node.op, GroupNorm) else (cells.name,)
            node = replace(node, op=replace(node.op, cell=cell), inputs=inputs)
        nodes.append(node)
    return graph.with_nodes(nodes, list(made.values()))


def _contribution(op: GlobalPool | GroupNorm, cell: Pair) -> Op:
    if isinstance(op, GroupNorm):
        return BlockMoments(cell, 2)
    return BlockMoments(cell, 1) if op.kind == "avg" else Pool2d("max", cell, cell, (0, 0))
