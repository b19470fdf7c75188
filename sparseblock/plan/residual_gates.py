"""Residual gates of exact plans: from the change of its input to the tiles that a convolution computes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sparseblock.backends.cpu import native
from sparseblock.errors import SparseBlockError
from sparseblock.plan.ir import Conv2d, Graph, Node
from sparseblock.plan.reach import grouped, reads

REFERENCES = ("last_frame", "last_update")


@dataclass(frozen=True, eq=False)
class ResidualGate:
    """Opens the tiles of a convolution whose input changed by enough: Habibian et al., Skip-Convolutions, CVPR 2021.

    The residual is r = x - reference, in every element of what an output pixel reads: its support, all channels of the
    kernel's window. A pixel is open where sum |r| > threshold, or, with a weight, where sum weight * r + bias > 0; a
    tile where one of its pixels is; a NaN opens. Open tiles are computed from x as it is now, so nothing accumulates;
    closed ones keep what they held. Where nothing changed nothing opens.

    Attributes:
        threshold: of the sum of magnitudes over the support; at infinity nothing opens. Not used with a weight.
        weight: float32 [1, c, r, s], the kernel's window, or None.
        bias: goes with the weight.
        reference: "last_frame", where a change that stays below the threshold is lost, or "last_update", where it keeps
            adding up until it opens the gate: a closed pixel's sum is never less than what its support has changed by
            since it was computed.
        tile: pixels along both sides of a tile of the convolution's output.

    Raises:
        SparseBlockError: one of them is no such thing.
    """

    threshold: float = 0.0
    weight: torch.Tensor | None = None
    bias: float = 0.0
    reference: str = "last_frame"
    tile: int = 1

    def __post_init__(self) -> None:
        for name, value, lowest in (("threshold", self.threshold, 0.0), ("bias", self.bias, -math.inf)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not lowest <= value:
                rule = "a number of at least 0" if lowest == 0.0 else "a number"
                raise SparseBlockError(f"ResidualGate: {name} is {value!r}; it must be {rule}")
        if self.reference not in REFERENCES:
            known = " or ".join(f'"{name}"' for name in REFERENCES)
            raise SparseBlockError(f"ResidualGate: reference is {self.reference!r}; it must be {known}")
        if isinstance(self.tile, bool) or not isinstance(self.tile, int) or self.tile < 1:
            raise SparseBlockError(f"ResidualGate: tile is {self.tile!r}; it must be a positive number of pixels")
        w = self.weight
        if w is not None and (
            not isinstance(w, torch.Tensor) or w.dtype != torch.float32 or w.dim() != 4 or len(w) != 1
        ):
            given = f"{w.dtype} {list(w.shape)}" if isinstance(w, torch.Tensor) else type(w).__name__
            raise SparseBlockError(f"ResidualGate: weight is {given}; it must be float32 [1, c, r, s]")
        if w is not None and self.reference != "last_frame":
            raise SparseBlockError(
                f'ResidualGate: reference is {self.reference!r} with a weight; such a gate has "last_frame" alone'
            )

    @property
    def carries(self) -> bool:
        """Whether it keeps, of every output pixel, how far what it reads has moved since it was computed."""
        return self.reference == "last_update"

    def __str__(self) -> str:
        rule = f"residual over {self.threshold:g}" if self.weight is None else "learned from the residual"
        return f"gate: {rule}, since the {self.reference.replace('_', ' ')}, tiles of {self.tile} px"


Gates = Mapping[str, ResidualGate] | Callable[[str, torch.Tensor], ResidualGate | None]


def find_gates(graph: Graph, gates: Gates) -> dict[str, ResidualGate]:
    """The gate of every convolution that is to have one, by the path of its module.

    Raises:
        SparseBlockError: a name is of no convolution that an output depends on, or a gate does not fit its own.
    """
    convs: dict[str, list[Conv2d]] = {}
    for node in graph.used_nodes():
        if isinstance(node.op, Conv2d) and node.origin:
            convs.setdefault(node.origin, []).append(node.op)
    if callable(gates):
        asked = {name: gates(name, ops[0].weight) for name, ops in convs.items()}
        gates = {name: gate for name, gate in asked.items() if gate is not None}
    for name, gate in gates.items():
        if name not in convs:
            known = ", ".join(map(repr, sorted(convs)[:3]))
            raise SparseBlockError(
                f"compile: gates has {name!r}, which is no convolution that an output depends on; there are {known}, "
                "..."
            )
        if len({op.weight.data_ptr() for op in convs[name]}) > 1:
            raise SparseBlockError(
                f"compile: gates has {name!r}, which is {len(convs[name])} convolutions of different weights; a gate "
                "is of one: give each a module of its own"
            )
        _check(name, gate, convs[name][0])
    return dict(gates)


def _check(name: str, gate: Any, op: Conv2d) -> None:
    if not isinstance(gate, ResidualGate):
        raise SparseBlockError(
            f"compile: gate of {name!r} is a {type(gate).__name__}; an exact plan takes a ResidualGate for each"
        )
    if gate.weight is None:
        return
    k = op.weight.shape
    wanted = [1, k[0] if op.transposed else k[1] * op.groups, *k[2:]]
    if list(gate.weight.shape) != wanted or op.transposed or op.padding_mode != "zeros":
        kind = "transposed" if op.transposed else f"padded with {op.padding_mode}"
        raise SparseBlockError(
            f"compile: gate of {name!r} has a weight {list(gate.weight.shape)} for a convolution {kind} whose windows "
            f"are {wanted}; it must have that shape, and the convolution be padded with zeros and not transposed"
        )


def native_gate(node: Node, gate: ResidualGate, graph: Graph, alive: list[Any], reach: Callable[..., Any]) -> Any:
    """`gate` as a `sb_residual_gate` of the convolution `node`; what that points to goes to `alive`."""
    x, out = graph.values[node.inputs[0]], graph.values[node.output]
    pairs = [reads(node, 0, graph, axis) for axis in (0, 1)]
    read = [reach(*grouped(*pair, size)) for pair, size in zip(pairs, out.shape[2:], strict=True)]
    readers = [reach(*grouped(*pair[::-1], size)) for pair, size in zip(pairs, x.shape[2:], strict=True)]
    weight = None
    if gate.weight is not None:
        packed = gate.weight.detach()[0].permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
        alive.append(packed)
        weight = packed.data_ptr()
    made = native.ResidualGate(*read, *readers, weight, gate.threshold, gate.bias, gate.reference == "last_update")
    alive.append(made)
    return ctypes.pointer(made)
