"""A padding becomes part of the convolutions and pools that read it: they read what they need of it where it is not.

Zeros add to a convolution's own; another mode takes the place of none. A maximum takes any constant, an average zeros.
The padded map is made only for whoever else reads it.

This is what the graph means, not only how fast it runs: a padded map of its own has blocks of its own, which keep what
they had where they are not active: readers would see pixels across a block's edge late. So it precedes the passes.
"""

from __future__ import annotations

import math
from dataclasses import replace

from sparseblock.grid import trailing_padding
from sparseblock.plan.ir import Conv2d, Graph, Node, Pad, Pair, Pool2d


def fold_padding(graph: Graph) -> Graph:
    nodes = list(graph.nodes)
    for pad in [node for node in reversed(graph.nodes) if isinstance(node.op, Pad)]:  # the last of several first
        nodes = [_folded(node, pad, graph) or node for node in nodes]
    return graph.with_nodes(nodes)


def trailing(node: Node, graph: Graph) -> Pair:
    """Pixels that a convolution or pool reads below and on the right of its input."""
    op, x, out = node.op, graph.values[node.inputs[0]], graph.values[node.output]
    kernel = op.weight.shape[2:] if isinstance(op, Conv2d) else op.kernel
    axes = zip(x.shape[2:], out.shape[2:], kernel, op.stride, op.padding, op.dilation, strict=True)
    return tuple(trailing_padding(*axis) for axis in axes)


def _folded(node: Node, pad: Node, graph: Graph) -> Node | None:
    """`node` reading what `pad` pads, or None where it cannot."""
    op, (vertical, horizontal) = node.op, pad.op.padding
    if not isinstance(op, (Conv2d, Pool2d)) or node.inputs[0] != pad.output or node.residual == pad.output:
        return None
    if min(*vertical, *horizontal) < 0:
        return None
    own = any(op.padding) or any(trailing(node, graph))
    changes = _conv_changes(op, pad.op, own) if isinstance(op, Conv2d) else _pool_changes(op, pad.op, own)
    if changes is None:
        return None
    padding = (op.padding[0] + vertical[0], op.padding[1] + horizontal[0])
    return replace(node, op=replace(op, padding=padding, **changes), inputs=(pad.inputs[0], *node.inputs[1:]))


def _conv_changes(op: Conv2d, pad: Pad, own: bool) -> dict | None:
    if op.transposed:
        return None
    if pad.mode == "constant":
        return {} if pad.value == 0.0 and op.padding_mode == "zeros" else None
    return None if own else {"padding_mode": pad.mode}


def _pool_changes(op: Pool2d, pad: Pad, own: bool) -> dict | None:
    if pad.mode != "constant" or op.adaptive:
        return None
    if op.kind == "max":
        alike = not own or pad.value == op.outside == -math.inf
        return {"outside": pad.value} if alike and (op.outside == -math.inf) else None
    return None if own or pad.value != 0.0 else {"divisor": op.divisor or op.kernel[0] * op.kernel[1]}
