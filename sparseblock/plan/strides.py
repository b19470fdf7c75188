"""How many pixels of the frame an element of each value stands for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from sparseblock.plan.ir import Conv2d, GlobalPool, Graph, Interpolate, Node, Pad, Pool2d, Value


def track_strides(graph: Graph) -> Graph:
    """The same graph with the stride of every map that has one.

    Windows multiply it, transposed convolutions divide it, and all else that keeps a map's size keeps its stride. Where
    the size changes in another way (a resize, an operator without a rule) it follows from the sizes.
    """
    frame = replace(graph.values[graph.input], stride=Fraction(1))
    values = {frame.name: frame}
    for node in graph.nodes:
        value = graph.values[node.output]
        if value.is_map:
            value = replace(value, stride=_stride(node, value, values, frame))
        values[value.name] = value
    return replace(graph, values=values)


def _stride(node: Node, value: Value, known: dict[str, Value], frame: Value) -> Fraction | None:
    inputs = [known[name] for name in node.inputs if known[name].is_map]
    if isinstance(node.op, GlobalPool):
        return None
    if isinstance(node.op, Conv2d) or (isinstance(node.op, Pool2d) and not node.op.adaptive):
        vertical, horizontal = node.op.stride
        if inputs[0].stride is None or vertical != horizontal:
            return None
        transposed = isinstance(node.op, Conv2d) and node.op.transposed
        return inputs[0].stride / vertical if transposed else inputs[0].stride * vertical
    if isinstance(node.op, Pad):
        return inputs[0].stride
    same_size = [source for source in inputs if source.shape[2:] == value.shape[2:]]
    if same_size:
        return next((source.stride for source in same_size if source.stride is not None), None)
    if isinstance(node.op, (Interpolate, Pool2d)) and inputs[0].stride is not None:
        ratio = _ratio(inputs[0], value)
        if ratio is not None:
            return inputs[0].stride * ratio
    for other in known.values():
        if other.is_map and other.shape[2:] == value.shape[2:] and other.stride is not None:
            return other.stride
    return _ratio(frame, value)


def _ratio(source: Value, value: Value) -> Fraction | None:
    """Elements of `source` per element of `value`, where it is the same along both axes."""
    vertical, horizontal = (Fraction(a, b) for a, b in zip(source.shape[2:], value.shape[2:], strict=True))
    return vertical if vertical == horizontal else None
