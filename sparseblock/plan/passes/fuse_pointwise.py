"""Sum, product, affine and activation go into the epilogue of the node that made their input, if only they read it.

Of a sum's or product's two producers the later one takes it: its value would otherwise be written and read once more,
and the other operand is there by then. The fused node stands where the pointwise node stood, after both operands.
"""

from __future__ import annotations

from sparseblock.grid import BlockGrid
from sparseblock.plan.absorb import absorb
from sparseblock.plan.ir import Graph, Node, Pointwise


def fuse_pointwise(graph: Graph, grid: BlockGrid) -> Graph:
    uses = {name: len(readers) for name, readers in graph.readers().items()}
    for name in graph.output_names():
        uses[name] += 1
    nodes: list[Node] = []
    for node in graph.nodes:
        shape = graph.values[node.output].shape  # not the pixel or channel that counts for all
        producers = [
            other
            for other in reversed(nodes)
            if other.output in node.inputs and uses[other.output] == 1 and graph.values[other.output].shape == shape
        ]
        fused = None
        if isinstance(node.op, Pointwise):
            for producer in producers:
                fused = absorb(producer, node)
                if fused is not None:
                    nodes.remove(producer)
                    break
        nodes.append(fused or node)
    return graph.with_nodes(nodes)
