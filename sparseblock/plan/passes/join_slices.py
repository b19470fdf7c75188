"""Slices of one value that follow one another in a concatenation become one slice, or all of them the value itself.

Networks split the channels, work on some, and put all side by side again; the concatenation can then be written in
place by what made the value.
"""

from __future__ import annotations

from dataclasses import replace

from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import Concat, Graph, Node, Slice, Value


def join_slices(graph: Graph, grid: BlockGrid | None) -> Graph:
    nodes: list[Node] = []
    joined: list[Value] = []
    slices = {node.output: node for node in graph.nodes if isinstance(node.op, Slice)}
    for node in graph.nodes:
        if isinstance(node.op, Concat):
            inputs: list[str] = []
            for first, last in _runs(node, graph, slices):
                if last - first == 1:
                    inputs.append(node.inputs[first])
                    continue
                begin = slices[node.inputs[first]]
                source = graph.values[begin.inputs[0]]
                width = sum(graph.values[name].shape[1] for name in node.inputs[first:last])
                if width == source.shape[1]:
                    inputs.append(source.name)
                    continue
                part = replace(source, name=f"{node.output}__slice{first}", shape=(1, width, *source.shape[2:]))
                joined.append(part)
                nodes.append(replace(begin, output=part.name))
                inputs.append(part.name)
            node = replace(node, inputs=tuple(inputs))
        nodes.append(node)
    graph = graph.with_nodes(nodes, joined)
    return graph.with_nodes(graph.used_nodes())


def _runs(concat: Node, graph: Graph, slices: dict[str, Node]) -> list[tuple[int, int]]:
    """The inputs of `concat`, [first, last), those together that follow one another in one value."""
    runs: list[tuple[int, int]] = []
    end = None  # the value that the last input is a slice of, and its channel after that
    for i, name in enumerate(concat.inputs):
        at = None if name not in slices else (slices[name].inputs[0], slices[name].op.start)
        follows = at is not None and at == end
        runs.append((runs.pop()[0] if follows else i, i + 1))
        end = None if at is None else (at[0], at[1] + graph.values[name].shape[1])
    return runs
