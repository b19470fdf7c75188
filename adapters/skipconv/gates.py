"""The gates of Skip-Convolutions. Each reads the residual r = x - reference of what its convolution reads."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import nn

from sparseblock import SparseBlockError
from sparseblock.plan.residual_gates import REFERENCES


@dataclass(frozen=True)
class InputNorm:
    """Open where the residual over the support is larger than epsilon: g = [ sum |r| > epsilon ].

    The sum is over all channels and the window of the kernel. No training.

    Attributes:
        epsilon: one for all layers, in units of their inputs.
        reference: what the residual is taken from. "last_frame": the input of the frame before, as in the paper; a
            change that stays below epsilon is lost for good. "last_update": it keeps adding up until it opens the gate.
    """

    epsilon: float
    reference: str = "last_update"

    def __post_init__(self) -> None:
        _check(self)

    def threshold(self, weight: torch.Tensor) -> float:
        """Of sum |r|, for a convolution with this weight."""
        return self.epsilon


@dataclass(frozen=True)
class OutputNorm:
    """Open where the output may change by more than epsilon: g = [ |W| * sum |r| > epsilon ].

    |W| is the L1 norm of all of W: by Young's inequality |W * r| <= |W| |r|. No training.

    Attributes:
        epsilon: one for all layers, in units of their outputs before the activation.
        reference: as of `InputNorm`.
    """

    epsilon: float
    reference: str = "last_update"

    def __post_init__(self) -> None:
        _check(self)

    def threshold(self, weight: torch.Tensor) -> float:
        """Of sum |r|, for a convolution with this weight."""
        norm = float(weight.detach().abs().sum())
        return self.epsilon / norm if norm else math.inf


@dataclass(frozen=True)
class Gumbel:
    """A learned gate: a convolution of the residual with one output channel decides, g = [ sigmoid(phi * r) > 0.5 ].

    In training g is drawn from Bernoulli(sigmoid(phi * r)) by the Gumbel trick for two classes, and its gradient is
    that of the relaxed sample (straight-through). Train it with `Gated`.

    Attributes:
        temperature: of the relaxation; the lower, the closer to the sample and the steeper.
        reference: the input of the frame before, from which it is learned what a change means.
    """

    temperature: float = 1.0
    reference: str = field(default="last_frame", init=False)

    def __post_init__(self) -> None:
        _check(self)


Gate = InputNorm | OutputNorm | Gumbel


def _check(gate: Gate) -> None:
    kind = type(gate).__name__
    name, lowest = ("temperature", "above 0") if isinstance(gate, Gumbel) else ("epsilon", "of at least 0")
    value = getattr(gate, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (isinstance(gate, Gumbel) and value == 0):
        raise SparseBlockError(f"{kind}: {name} is {value!r}; it must be a finite number {lowest}")
    if gate.reference not in REFERENCES:
        known = " or ".join(f'"{name}"' for name in REFERENCES)
        raise SparseBlockError(f"{kind}: reference is {gate.reference!r}; it must be {known}")


def check_gate(what: str, gate: Gate, structure: int) -> None:
    """Raises SparseBlockError unless `gate` is one of the gates, and `structure` pixels."""
    if not isinstance(gate, Gate):
        raise SparseBlockError(f"{what}: gate is {gate!r}; it must be a skipconv.InputNorm, OutputNorm or Gumbel")
    if isinstance(structure, bool) or not isinstance(structure, int) or structure < 1:
        raise SparseBlockError(f"{what}: structure is {structure!r}; it must be pixels of a block, 1 for none")


def convolutions(what: str, model: nn.Module, layers: Collection[str] | None) -> dict[str, nn.Conv2d]:
    """The convolutions of `model` by name: all, or those of `layers`.

    Raises:
        SparseBlockError: a name is of no convolution, or there is none.
    """
    if not isinstance(model, nn.Module):
        raise SparseBlockError(f"{what}: model is a {type(model).__name__}; it must be a torch.nn.Module")
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and name}
    if isinstance(layers, str):
        raise SparseBlockError(f"{what}: layers is {layers!r}; it must be a list of names: layers=[{layers!r}]")
    names = list(found if layers is None else layers)
    for name in names:
        if name not in found:
            known = ", ".join(map(repr, list(found)[:3])) or "none"
            raise SparseBlockError(
                f"{what}: layers has {name!r}, which is no Conv2d of the model; there are {known}, ..."
            )
    if not names:
        given = f"{type(model).__name__} has no Conv2d inside" if layers is None else "layers is empty"
        raise SparseBlockError(f"{what}: {given}, so there is nothing to gate")
    return {name: found[name] for name in names}
