"""The same graph run by torch alone, node by node, as the contract says: where(active, dense_op(x), previous).

Slow and short. It has planes of its own, one per value, shares nothing with the executor but the graph and its
placement, takes its activations from the reference backend, and can compute in float64. Tests compare plans with it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

from sparseblock.backends.reference.block_moments import moments
from sparseblock.backends.reference.global_avg_pool2d import mean
from sparseblock.backends.reference.group_norm import statistics
from sparseblock.backends.reference.masked import activate, combined
from sparseblock.grid import BlockGrid, trailing_padding
from sparseblock.plan.ir import (
    BlockMoments,
    ChannelNorm,
    Concat,
    Conv2d,
    GlobalPool,
    Graph,
    GroupNorm,
    Interpolate,
    Node,
    Pad,
    Pool2d,
    Ref,
    Shuffle,
    Slice,
    Torch,
)
from sparseblock.plan.placement import place


class Reference:
    """Runs `graph` frame by frame for one stream.

    Args:
        graph: from `sparseblock.plan.compile.trace`, before the passes, or `Plan.graph`, after them.
        grid: the plan's.
        dtype: torch.float32 or torch.float64, for maps and weights alike.
    """

    def __init__(self, graph: Graph, grid: BlockGrid, dtype: torch.dtype = torch.float64) -> None:
        self.graph = graph
        self.dtype = dtype
        self.values: dict[str, Any] = {}
        self._grid = grid
        self._placements = place(graph, grid)

    @torch.no_grad()
    def __call__(self, frame: Any, mask: torch.Tensor) -> list[Any]:
        """The leaves of the network's output with `mask`, bool [rows, cols], active.

        `frame` is [1, c, h, w], or, of a network that takes several maps, a list, tuple or dict of such.
        """
        for name, image in zip(self.graph.inputs, pytree.tree_leaves(frame), strict=True):
            self.values[name] = image.to(self.dtype)
        for node in self.graph.nodes:
            result, placement = self._compute(node), self._placements[node.output]
            if placement.kind == "sparse" and not isinstance(node.op, Slice) and node.output in self.values:
                active = self._pixels(mask, placement.block, result.shape)
                result = torch.where(active, result, self.values[node.output])
            self.values[node.output] = result
        return [self._value(leaf) for leaf in self.graph.outputs]

    def _pixels(self, mask: torch.Tensor, block: int, shape: torch.Size) -> torch.Tensor:
        rows = torch.arange(shape[2]) // block
        cols = torch.arange(shape[3]) // block
        return mask[rows[:, None], cols[None, :]]

    def _compute(self, node: Node) -> Any:
        if isinstance(node.op, Torch):
            args, kwargs = pytree.tree_map(self._value, (node.op.args, node.op.kwargs))
            result = node.op.target(*args, **kwargs)
            # What is float32 in the network, and may have been cast to it, is of this dtype here.
            return result.to(self.dtype) if self.graph.values[node.output].dtype == torch.float32 else result
        x, *more = (self.values[name] for name in node.inputs)
        shape = self.graph.values[node.output].shape
        match node.op:
            case Conv2d() as op:
                x = self._conv(op, x, shape)
            case Pool2d() as op:
                x = _pool(op, x, shape)
            case Interpolate() as op:
                factors = op.factors or (None, None)
                size = list(shape[2:])
                if op.mode == "nearest":
                    x = torch.ops.aten.upsample_nearest2d(x, size, *factors)
                else:
                    x = torch.ops.aten.upsample_bilinear2d(x, size, op.align_corners, *factors)
            case Pad(mode=mode, padding=(vertical, horizontal), value=value):
                return F.pad(x, (*horizontal, *vertical), mode, value if mode == "constant" else None)
            case Shuffle(kind=kind, factor=factor):
                return getattr(F, kind)(x, factor)
            case BlockMoments(cell=cell, order=order):
                return moments(x, cell, order)
            case GlobalPool(kind="max"):
                return x.amax((2, 3), keepdim=True)
            case GlobalPool(size=size, cell=cell):
                return x.mean((2, 3), keepdim=True) if cell is None else mean(x, size, cell)
            case GroupNorm() as op:
                return self._epilogue(node, _normalize(op, x, *more))
            case ChannelNorm(kind="softmax"):
                x = torch.softmax(x, 1)
            case ChannelNorm(kind="normalize", eps=eps):
                x = F.normalize(x, dim=1, eps=eps)
            case ChannelNorm(eps=eps):
                x = F.layer_norm(x.movedim(1, -1), shape[1:2], eps=eps).movedim(-1, 1)
            case Concat():
                return torch.cat([x, *more], 1)
            case Slice(start=start):
                return x[:, start : start + shape[1]]
        return self._epilogue(node, combined(x, more[0] if more else None, node.epilogue.combine))

    def _conv(self, op: Conv2d, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        weight, bias = self._value(op.weight), self._value(op.bias)
        if not op.transposed:
            mode = "constant" if op.padding_mode == "zeros" else op.padding_mode
            x = F.pad(x, _around(op, op.weight.shape[2:], x, shape), mode)
            return F.conv2d(x, weight, bias, op.stride, 0, op.dilation, op.groups)
        least = F.conv_transpose2d(x, weight, bias, op.stride, op.padding, 0, op.groups, op.dilation)
        extra = [size - without for size, without in zip(shape[2:], least.shape[2:], strict=True)]
        return F.conv_transpose2d(x, weight, bias, op.stride, op.padding, extra, op.groups, op.dilation)

    def _epilogue(self, node: Node, x: torch.Tensor) -> torch.Tensor:
        epilogue = node.epilogue
        scale, shift, slope = (
            None if vector is None else vector.to(self.dtype)
            for vector in (epilogue.scale, epilogue.shift, epilogue.slope)
        )
        x = x if scale is None else x * scale[:, None, None]
        x = x if shift is None else x + shift[:, None, None]
        return activate(x, epilogue.activation, slope, epilogue.bounds)

    def _value(self, leaf: Any) -> Any:
        """What stands for an argument: values by name, floating-point constants in this dtype."""
        if isinstance(leaf, Ref):
            return self.values[leaf.name]
        if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32:
            return leaf.to(self.dtype)
        return leaf


def _normalize(op: GroupNorm, x: torch.Tensor, cells: torch.Tensor | None = None) -> torch.Tensor:
    if cells is None:
        return F.group_norm(x, op.groups, eps=op.eps)
    center, variance = statistics(cells, x.shape[2:], op.cell, op.groups)
    return (x - center) * (variance + op.eps).rsqrt()


def _around(op: Conv2d | Pool2d, kernel: Any, x: torch.Tensor, shape: tuple[int, ...]) -> list[int]:
    """Left, right, top, bottom: what the windows read outside of `x`."""
    around = []
    for axis in (1, 0):
        place = (kernel[axis], op.stride[axis], op.padding[axis], op.dilation[axis])
        around += [op.padding[axis], trailing_padding(x.shape[2 + axis], shape[2 + axis], *place)]
    return around


def _pool(op: Pool2d, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if op.adaptive:
        return (F.adaptive_max_pool2d if op.kind == "max" else F.adaptive_avg_pool2d)(x, shape[2:])
    around = _around(op, op.kernel, x, shape)
    if op.kind == "max":
        return F.max_pool2d(F.pad(x, around, value=op.outside), op.kernel, op.stride, 0, op.dilation)
    if op.divisor:
        return F.avg_pool2d(F.pad(x, around), op.kernel, op.stride, divisor_override=op.divisor)
    for ceil_mode in (True, False):  # rounding down, windows larger than the map leave no output
        result = F.avg_pool2d(x, op.kernel, op.stride, op.padding, ceil_mode, op.count_include_pad)
        if result.shape[2:] == shape[2:]:
            break
    return result
