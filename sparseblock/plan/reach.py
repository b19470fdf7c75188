"""What an output reads of its inputs, pixel by pixel: rows and columns apart.

Every operator here reads, for a rectangle of its output, a set of input rows times a set of input columns. So its reach
is two lists of pairs (output position, input position), one per axis. They hold exactly the positions that a kernel
reads: neither the holes of a dilation nor what lies in the padding.
"""

from __future__ import annotations

import numpy as np

from sparseblock.grid import interpolate_scale
from sparseblock.plan.ir import (
    BlockMoments,
    ChannelNorm,
    Concat,
    Conv2d,
    Graph,
    GroupNorm,
    Interpolate,
    Node,
    Pad,
    Pointwise,
    Pool2d,
    Shuffle,
    Slice,
    Value,
)

Pairs = tuple[np.ndarray, np.ndarray]  # output positions, input positions


def reads(node: Node, place: int, graph: Graph, axis: int) -> Pairs:
    """The positions along `axis` (0: rows, 1: columns) of its input number `place` that `node` reads.

    An operator that is not known here, or a value that is no map, is taken to read everything for everything.
    """
    x, out = graph.values[node.inputs[place]], graph.values[node.output]
    if not x.is_map or not out.is_map:
        return everything(_size(out, axis), _size(x, axis))
    size, out_size = x.shape[2 + axis], out.shape[2 + axis]
    if node.residual is not None and place == 1:
        return _same(out_size, size)
    match node.op:
        case Conv2d(transposed=False) as op:
            kernel = op.weight.shape[2 + axis]
            window = (out_size, size, kernel, op.stride[axis], op.padding[axis], op.dilation[axis])
            return _window(*window, op.padding_mode)
        case Conv2d() as op:
            kernel = op.weight.shape[2 + axis]
            sources, outputs = _window(size, out_size, kernel, op.stride[axis], op.padding[axis], op.dilation[axis])
            return outputs, sources
        case BlockMoments(cell=cell):
            return _cells(np.arange(0, size, cell[axis]), np.minimum(np.arange(0, size, cell[axis]) + cell[axis], size))
        case GroupNorm(cell=cell) if place == 0 and cell is not None:  # the other input has the statistics
            return _same(out_size, size)
        case Pool2d(adaptive=True):
            edges = np.arange(out_size + 1) * size
            return _cells(edges[:-1] // out_size, -(-edges[1:] // out_size))
        case Pool2d() as op:
            return _window(out_size, size, op.kernel[axis], op.stride[axis], op.padding[axis], op.dilation[axis])
        case Pad() as op:
            return _window(out_size, size, 1, 1, op.padding[axis][0], 1, op.mode)
        case Shuffle(kind="pixel_shuffle", factor=factor):
            return np.arange(out_size), np.arange(out_size) // factor
        case Shuffle(kind="pixel_unshuffle", factor=factor):
            return _window(out_size, size, factor, factor, 0, 1)
        case Interpolate() as op:
            return _resize(op, axis, size, out_size)
        case Shuffle() | ChannelNorm() | Pointwise() | Concat() | Slice():
            return _same(out_size, size)
        case _:
            return everything(out_size, size)


def grouped(keys: np.ndarray, values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The values of each key below `size`, once and ascending, as `sb_reach` has them: start [size + 1] and index."""
    width = int(values.max(initial=0)) + 1
    keys, values = np.divmod(np.unique(keys * width + values), width)
    return np.searchsorted(keys, np.arange(size + 1)).astype(np.int32), values.astype(np.int32)


def _size(value: Value, axis: int) -> int:
    return value.shape[2 + axis] if value.is_map else 1


def everything(out_size: int, size: int) -> Pairs:
    """Every position of an input, for every one of an output."""
    return np.repeat(np.arange(out_size), size), np.tile(np.arange(size), out_size)


def halo(node: Node, place: int, graph: Graph, axis: int, block: int, block_out: int) -> tuple[int, int]:
    """How far before and behind a block of its input number `place` the same block of the output of `node` reads."""
    outputs, sources = reads(node, place, graph, axis)
    start = outputs // block_out * block
    before, after = (start - sources).max(initial=0), (sources - start - block + 1).max(initial=0)
    return int(before), int(after)


def _same(out_size: int, size: int) -> Pairs:
    """Position by position; a map of one position that is spread over all."""
    outputs = np.arange(out_size)
    return outputs, outputs if size == out_size else np.zeros_like(outputs)


def _window(
    out_size: int, size: int, kernel: int, stride: int, padding: int, dilation: int, mode: str = "zeros"
) -> Pairs:
    outputs = np.repeat(np.arange(out_size), kernel)
    sources = outputs * stride - padding + np.tile(np.arange(kernel) * dilation, out_size)
    match mode:
        case "reflect":
            sources = np.abs(sources)
            sources = np.where(sources < size, sources, 2 * (size - 1) - sources)
        case "replicate":
            sources = np.clip(sources, 0, size - 1)
        case "circular":
            sources = sources % size
    inside = (sources >= 0) & (sources < size)
    return outputs[inside], sources[inside]


def _cells(first: np.ndarray, last: np.ndarray) -> Pairs:
    """Output i reads positions [first[i], last[i])."""
    outputs = np.repeat(np.arange(len(first)), last - first)
    return outputs, np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])


def _resize(op: Interpolate, axis: int, size: int, out_size: int) -> Pairs:
    """The source positions of csrc/cpu/interpolate.cpp, in the same float32 arithmetic."""
    factor = None if op.factors is None else op.factors[axis]
    scale = np.float32(interpolate_scale(size, out_size, op.mode, op.align_corners, factor))
    outputs = np.arange(out_size)
    position = outputs.astype(np.float32) * scale
    if op.mode == "bilinear" and not op.align_corners:
        position = np.maximum(scale * (outputs.astype(np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    near = np.minimum(position.astype(np.int64), size - 1)
    if op.mode == "nearest":
        return outputs, near
    return np.concatenate([outputs, outputs]), np.concatenate([near, np.minimum(near + 1, size - 1)])
