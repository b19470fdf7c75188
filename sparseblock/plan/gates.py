"""Gates: which tiles of one layer run, decided just before it from what it is about to read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from sparseblock.blocks import BlockSet, describe, is_mask
from sparseblock.cache import FeatureCache
from sparseblock.errors import SparseBlockError
from sparseblock.plan.ir import Conv2d, Graph, Node
from sparseblock.plan.placement import Placement


@dataclass(frozen=True)
class GatedLayer:
    """What a gate sees of its layer, before it runs. Tensors are views: copy what is to last.

    Attributes:
        name: path of the module.
        x: float32 [n, c, h, w]: what it is about to read.
        out: float32 [n, k, h, w]: what it holds from earlier frames, and keeps where the gate stays closed.
        active: bool [n, rows, cols]: the tiles that the frame's blocks leave open.
        first: for each stream, whether it is its first frame; that runs whole, whatever the gate says.
        memory: the gate's own, kept in the state from frame to frame; empty at the start.
    """

    name: str
    x: torch.Tensor
    out: torch.Tensor
    active: torch.Tensor
    first: tuple[bool, ...]
    memory: dict[str, Any]


class Gate(Protocol):
    """Decides, frame by frame, which tiles of a convolution are computed anew: bool [n, rows, cols], true where open.

    Attributes:
        tile: pixels along both sides of a tile of the layer's output; divides the block of the plan's grid there.
    """

    tile: int

    def __call__(self, layer: GatedLayer) -> torch.Tensor: ...


def mark_gated(graph: Graph, names: Collection[str]) -> Graph:
    """The graph with the convolutions of these modules marked: passes and planes leave them a value of their own."""
    return graph.with_nodes(
        [replace(node, gated=isinstance(node.op, Conv2d) and node.origin in names) for node in graph.nodes]
    )


def check_names(graph: Graph, names: Sequence[str]) -> None:
    """Raises SparseBlockError unless each is the name of one convolution that an output depends on, called once."""
    convs = [node.origin for node in graph.used_nodes() if isinstance(node.op, Conv2d)]
    for name in names:
        if convs.count(name) != 1:
            known = ", ".join(map(repr, sorted(set(convs))[:3]))
            raise SparseBlockError(
                f"compile: gates has {name!r}, which is {convs.count(name)} convolutions that an output "
                f"depends on; a gate is of one: {known}, ..."
            )


def check_gates(gates: Mapping[str, Gate | BlockSet], nodes: Mapping[str, Node]) -> None:
    """Every gate is one, and of a layer that the plan was compiled with gates for."""
    if not isinstance(gates, Mapping):
        raise SparseBlockError(f"plan: gates is a {type(gates).__name__}; it must be a dict of gates by layer")
    for name, gate in gates.items():
        if name not in nodes:
            raise SparseBlockError(
                f"plan: gates has {name!r}, but this plan has gates for {', '.join(map(repr, nodes)) or 'no layer'}; "
                f"compile it with gates=[{name!r}, ...]"
            )
        if not isinstance(gate, BlockSet) and not (callable(gate) and hasattr(gate, "tile")):
            raise SparseBlockError(
                f"plan: gate of {name!r} is a {type(gate).__name__}; it must be a BlockSet of the layer's output, or a "
                "function of a GatedLayer with an attribute tile"
            )


def open_tiles(
    gate: Gate | BlockSet, node: Node, placement: Placement, x: torch.Tensor, active: BlockSet, state: FeatureCache
) -> BlockSet:
    """The tiles of `node` that run: open, and within the frame's active blocks."""
    name, out = node.origin, state[node.output]
    tile = gate.block[0] if isinstance(gate, BlockSet) else gate.tile
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1 or placement.block % tile:
        raise SparseBlockError(
            f"plan: gate of {name!r} has tiles of {tile!r} px; "
            f"they must divide the {placement.block} px of a block there"
        )
    times, (height, width) = placement.block // tile, out.shape[2:]
    mask = active.to_mask().repeat_interleave(times, 1).repeat_interleave(times, 2)
    mask = mask[:, : -(-height // tile), : -(-width // tile)]
    first = tuple(seen == 0 for seen in state.frames)
    if isinstance(gate, BlockSet):
        decided = gate.to_mask() if gate.block == (tile, tile) else gate
    else:
        decided = gate(GatedLayer(name, x, out, mask, first, state.gates.setdefault(name, {})))
    if not is_mask(decided) or decided.shape != mask.shape or decided.device != mask.device:
        raise SparseBlockError(
            f"plan: gate of {name!r} gives {describe(decided)}; it must be bool {list(mask.shape)} [n, rows, cols] "
            f"on {mask.device}, for tiles of {tile} px"
        )
    if any(first):
        decided = decided | torch.tensor(first, device=mask.device)[:, None, None]
    opened = mask & decided
    state.open[name] = opened
    return BlockSet.from_mask(opened, tile)
