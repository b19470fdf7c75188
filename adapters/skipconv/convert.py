"""`convert`: a network with gates on the sparse kernels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import sparseblock
from skipconv.gated import Gated
from skipconv.gates import Gate, Gumbel, check_gate, convolutions
from sparseblock import SparseBlockError
from sparseblock.plan import ResidualGate


@dataclass(frozen=True)
class SkipStats:
    """One frame, over all streams; `str()` is a table.

    Attributes:
        opened: share of its output's tiles that each gated layer computed, by layer: its firing rate.
        macs, dense_macs: multiply-accumulates that were computed, and those of the dense network.
    """

    opened: dict[str, float]
    macs: int
    dense_macs: int

    @property
    def share(self) -> float:
        """Of the dense network's multiply-accumulates."""
        return self.macs / self.dense_macs

    def __str__(self) -> str:
        width = max(len(name) for name in self.opened)
        lines = [f"{name:{width}}  {100 * share:5.1f} %" for name, share in self.opened.items()]
        return "\n".join([*lines, f"{self.macs / 1e9:.3f} GMAC, {100 * self.share:.1f} % of dense"])


class SkipNet:
    """A network with gates, frame by frame. Made by `convert`.

    Attributes:
        plan: the `sparseblock.ExactPlan` that runs it; `plan.report()` has every layer and its gate.
        state: what the streams have seen; it can be saved, loaded and forked (`state.state_dict()`).
        refresh_every: how many frames after a dense one the next dense one comes; None: never.
    """

    def __init__(self, plan: sparseblock.ExactPlan, streams: int, refresh_every: int | None = None) -> None:
        self.plan, self.refresh_every = plan, refresh_every
        self.state = plan.new_state(streams)

    def __call__(self, frame: torch.Tensor) -> Any:
        """What the network returns for the next frame of every stream.

        Args:
            frame: float32 [n, c, h, w], n streams, of the example's size.

        Returns:
            As the model; tensors are views of the state, valid until the next frame.

        Raises:
            SparseBlockError: the frame does not fit.
        """
        if self.refresh_every is not None:
            for stream, seen in enumerate(self.state.frames):
                if seen >= self.refresh_every:
                    self.state.reset(stream)
        return self.plan(frame, None, self.state)

    def reset(self, stream: int | None = None) -> None:
        """The next frame of a stream, or of all, is its first: dense."""
        self.state.reset(stream)

    @property
    def stats(self) -> SkipStats:
        """Of the last frame.

        Raises:
            SparseBlockError: there was none.
        """
        if not any(self.state.frames):
            raise SparseBlockError("SkipNet.stats: no frame has been run since the streams began")
        frame = self.plan.stats(self.state)
        gated = {node.name for node in self.plan.graph.nodes if node.output in self.plan.residual_gates}
        tiles: dict[str, list[int]] = {}
        for node in frame.nodes:
            if node.name in gated:
                computed, every = tiles.get(node.name, (0, 0))
                tiles[node.name] = [computed + node.computed, every + node.tiles]
        return SkipStats({name: a / b for name, (a, b) in tiles.items()}, frame.macs, frame.dense_macs)


def convert(
    model: nn.Module | Gated,
    example_frame: torch.Tensor,
    gate: Gate | None = None,
    structure: int | None = None,
    layers: Collection[str] | None = None,
    refresh_every: int | None = None,
) -> SkipNet:
    """The network with a gate at every convolution, on the sparse kernels of the CPU.

    Gated convolutions compute open tiles from the input as it is ("recompute"), so nothing accumulates; everything
    between them runs where a value that it reads was computed anew. A stream's first frame is dense.

    Args:
        model: an unmodified module in eval mode, float32 on the cpu, of one frame; or a `Gated` in eval mode, whose
            gates, structure and layers are then taken. Later changes of its weights do not reach the result.
        example_frame: float32 [n, c, h, w], n streams.
        gate: `InputNorm` or `OutputNorm`. Learned gates come with a `Gated`.
        structure: pixels along both sides of a block of the gate; 4 by default, 1 for none. Larger ones run faster.
        layers: names of the convolutions that get one; all by default. The others run wherever their input changed.
        refresh_every: frames until a stream runs dense again, from nothing; None: never.

    Raises:
        SparseBlockError: an argument is no such thing, or the network cannot be captured whole.

    Example:
        >>> net = skipconv.convert(model, frame, skipconv.OutputNorm(epsilon=0.1), structure=4)
        >>> for frame in frames:
        ...     out = net(frame)
        ...     print(net.stats.share)
    """
    layers = layers if layers is None or isinstance(layers, str) else list(layers)  # gone through more than once
    if isinstance(model, Gated):
        if (gate, structure, layers) != (None, None, None):
            raise SparseBlockError(
                "convert: gate, structure or layers are given with a Gated; it has its own: leave them out"
            )
        if model.form != "recompute":
            raise SparseBlockError(f'convert: form is {model.form!r}; plans compute "recompute" alone')
        model, gated = model.model, model
        gate, structure = gated.gate, gated.structure
        learned = {name: gated.learned(name) for name in gated.layers}
    else:
        structure = 4 if structure is None else structure
        check_gate("convert", gate, structure)
        if isinstance(gate, Gumbel):
            raise SparseBlockError(
                "convert: gate is a Gumbel, which is learned; train it with skipconv.Gated and give that"
            )
        learned = dict.fromkeys(convolutions("convert", model, layers))
    if refresh_every is not None and (
        isinstance(refresh_every, bool) or not isinstance(refresh_every, int) or refresh_every < 1
    ):
        raise SparseBlockError(f"convert: refresh_every is {refresh_every!r}; it must be a number of frames, or None")

    def gate_of(name: str, weight: torch.Tensor) -> ResidualGate | None:
        if name not in learned:
            return None
        phi = learned[name]
        if phi is None:
            return ResidualGate(gate.threshold(weight), reference=gate.reference, tile=structure)
        return ResidualGate(0.0, phi.weight.detach().clone(), float(phi.bias.detach()), gate.reference, structure)

    plan = sparseblock.compile(model, example_frame, mode="exact", gates=gate_of)
    found = {node.origin for node in plan.graph.nodes if node.gated}
    for name in layers or ():
        if name not in found:
            raise SparseBlockError(f"convert: layers has {name!r}, on which no output depends; leave it out")
    return SkipNet(plan, len(example_frame), refresh_every)
