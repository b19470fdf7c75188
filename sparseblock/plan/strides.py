"""How many pixels of the frame an element of each value stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from sparseblock.plan.axes import AxisTracker
from sparseblock.plan.ir import Conv2d, GlobalPool, Graph, Interpolate, Node, Pad, Pool2d, Shuffle, Value


def track_strides(graph: Graph, strides: Sequence[Fraction | None] | None = None) -> Graph:
    """The same graph with the stride of every map that has one.

    `strides` are those of the inputs. Unless they are given, the largest input is the frame, and the others are at what
    their sizes say.

    Windows and pixel unshuffles multiply it, transposed convolutions and pixel shuffles divide it, and all else that
    keeps a map's size keeps its stride. Where the size changes in another way (a resize, an operator without a rule,
    such as padding) it follows from the sizes. What has other axes than the frame's has none.
    """
    inputs = [graph.values[name] for name in graph.inputs]
    if strides is None:
        size = frame_size(graph)
        strides = [stride_by_size(size, value.shape[2:]) for value in inputs]
    inputs = [replace(value, stride=stride) for value, stride in zip(inputs, strides, strict=True)]
    values = {value.name: value for value in inputs}
    frame = max(inputs, key=lambda value: value.shape[2] * value.shape[3])
    axes = AxisTracker(graph.values)
    for value in inputs:
        axes.add_frame(value.name)
    for node in graph.nodes:
        value = graph.values[node.output]
        axes.add(node)
        if axes.is_frame(value.name):
            maps = [values[name] for name in node.inputs if axes.is_frame(name)]
            value = replace(value, stride=_stride(node, value, maps, values, frame))
        values[value.name] = value
    return replace(graph, values=values)


def frame_size(graph: Graph) -> tuple[int, int]:
    """Height and width of the largest input."""
    return max((graph.values[name].shape[2:] for name in graph.inputs), key=lambda size: size[0] * size[1])


def stride_by_size(frame: tuple[int, int], size: tuple[int, int]) -> Fraction | None:
    """Pixels of a frame of (height, width) per element of a map of `size`, where it is the same along both axes.

    A map that windows with a stride made has the frame's sides over the stride, rounded up or down. (Of a single pixel
    that would say nothing.)
    """
    vertical, horizontal = (Fraction(a, b) for a, b in zip(frame, size, strict=True))
    if vertical == horizontal:
        return vertical
    for whole in sorted({round(vertical), round(horizontal)} - {0}) if min(size) > 1 else ():
        if all(a // whole <= b <= -(-a // whole) for a, b in zip(frame, size, strict=True)):
            return Fraction(whole)
    return None


def _spans(ratio: Fraction, source: Value, value: Value) -> bool:
    """Whether steps of `ratio` through a map that is resized end within a pixel of where it does.

    A window with a stride leaves a rest of the map out; what resizes a map stretches over it, pixel by pixel further.
    """
    return all(abs(a - b * ratio) <= 1 for a, b in zip(source.shape[2:], value.shape[2:], strict=True))


def _stride(
    node: Node, value: Value, inputs: Sequence[Value], known: dict[str, Value], frame: Value
) -> Fraction | None:
    """Of `value`, which `node` makes of the maps `inputs` and of what is no map."""
    if isinstance(node.op, GlobalPool):
        return None
    if isinstance(node.op, Conv2d) or (isinstance(node.op, Pool2d) and not node.op.adaptive):
        vertical, horizontal = node.op.stride
        if vertical != horizontal:
            return None
        if inputs[0].stride is not None:
            transposed = isinstance(node.op, Conv2d) and node.op.transposed
            return inputs[0].stride / vertical if transposed else inputs[0].stride * vertical
    match node.op:
        case Shuffle(kind="pixel_shuffle", factor=factor) if inputs[0].stride is not None:
            return inputs[0].stride / factor
        case Shuffle(kind="pixel_unshuffle", factor=factor) if inputs[0].stride is not None:
            return inputs[0].stride * factor
    if isinstance(node.op, Pad):
        return inputs[0].stride
    same_size = [source for source in inputs if source.shape[2:] == value.shape[2:]]
    if same_size:
        return next((source.stride for source in same_size if source.stride is not None), None)
    if isinstance(node.op, (Interpolate, Pool2d)) and inputs[0].stride is not None:
        ratio = stride_by_size(inputs[0].shape[2:], value.shape[2:])
        if ratio is not None:
            return inputs[0].stride * ratio if _spans(ratio, inputs[0], value) else None
    for other in known.values():
        if other.is_map and other.shape[2:] == value.shape[2:] and other.stride is not None:
            return other.stride
    ratio = stride_by_size(frame.shape[2:], value.shape[2:])
    return None if ratio is None or frame.stride is None else frame.stride * ratio
