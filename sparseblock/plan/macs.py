"""Multiply-accumulates of a graph: exact, per node and per block, of convolutions and of torch's matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from sparseblock.plan.ir import Conv2d, Graph, Node, Ref, Torch, Value


def node_macs(node: Node, graph: Graph) -> int:
    """MACs of one node on one whole frame. As is usual, a window over padding counts in full."""
    if isinstance(node.op, Conv2d):
        rows, cols = _taps(node, graph)
        return int(rows.sum()) * int(cols.sum()) * _per_tap(node.op)
    if isinstance(node.op, Torch) and isinstance(node.op.target, torch._ops.OpOverload):
        return _torch_macs(node.op, graph)
    return 0


def block_macs(node: Node, graph: Graph, block: int, rows: int, cols: int) -> torch.Tensor:
    """int64 [rows, cols]: MACs of a convolution in each block of `block` pixels of its output, clipped to the frame."""
    per_row, per_col = axis_macs(node, graph, block, rows, cols)
    return per_row[:, None] * per_col[None, :]


def axis_macs(node: Node, graph: Graph, block: int, rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [rows] and [cols], whose products are the `block_macs`."""
    vertical, horizontal = _taps(node, graph)
    return _sums(vertical, block, rows) * _per_tap(node.op), _sums(horizontal, block, cols)


def _per_tap(conv: Conv2d) -> int:
    """MACs of one kernel tap at one output pixel, over all channels."""
    return conv.weight.shape[0] * conv.weight.shape[1]


def _taps(node: Node, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel taps that reach each output row, and each output column."""
    conv, x, out = node.op, graph.values[node.inputs[0]], graph.values[node.output]
    axes = []
    for axis in (0, 1):
        kernel, size, out_size = conv.weight.shape[2 + axis], x.shape[2 + axis], out.shape[2 + axis]
        if not conv.transposed:
            axes.append(torch.full((out_size,), kernel, dtype=torch.int64))
            continue
        sources = torch.arange(size)[:, None] * conv.stride[axis] - conv.padding[axis]
        reached = (sources + torch.arange(kernel) * conv.dilation[axis]).flatten()
        reached = reached[(reached >= 0) & (reached < out_size)]
        axes.append(torch.bincount(reached, minlength=out_size))
    return axes[0], axes[1]


def _sums(counts: torch.Tensor, block: int, blocks: int) -> torch.Tensor:
    return torch.stack([counts[i * block : (i + 1) * block].sum() for i in range(blocks)])


def _torch_macs(op: Torch, graph: Graph) -> int:
    """What torch's own counter says of the call; it knows convolutions and matrix products."""

    def on_meta(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            value: Value = graph.values[leaf.name]
            return None if value.shape is None else torch.empty(value.shape, dtype=value.dtype, device="meta")
        return leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf

    args, kwargs = pytree.tree_map(on_meta, (op.args, op.kwargs))
    if kwargs.get("device") is not None or not any(
        isinstance(leaf, Ref) for leaf in pytree.tree_leaves((op.args, op.kwargs))
    ):
        return 0  # makes a tensor of no input: nothing is multiplied
    with FlopCounterMode(display=False) as counter:
        op.target(*args, **kwargs)
    return counter.get_total_flops() // 2
