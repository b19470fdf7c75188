"""Policy: what every way to choose blocks has in common."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from blockcopy.numbers import HOST, Numbers

Lasting = tuple[tuple[object, str], ...]
"""Attributes, each as an object and the attribute's name."""


@dataclass(frozen=True)
class Context:
    """What is known of a stream before a frame's blocks are chosen.

    Attributes:
        frame: the frame, small, float32 [1, c, rows * 8, cols * 8] (see PolicyView.frame).
        executed: each block's pixels of `frame` when it was last executed; same shape.
        output: features of the network's previous output, [1, k, rows * s, cols * s] (see Task.features); None for
            policies that do not ask for them.
        active: bool [rows, cols], the blocks of the previous frame.
        age: int64 [rows, cols], frames since the block was executed: 0 when the previous frame did.
        mean, deviation: [c], by which frames are standardised (see Standardise): lists of numbers.
    """

    frame: torch.Tensor
    executed: torch.Tensor
    output: torch.Tensor | None
    active: torch.Tensor
    age: torch.Tensor
    mean: Any
    deviation: Any

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols)."""
        return tuple(self.active.shape)

    @functools.cached_property
    def change(self) -> torch.Tensor:
        """Mean over the channels of |frame - executed|, both standardised, [rows * 8, cols * 8]."""
        deviation = torch.as_tensor(self.deviation, dtype=self.frame.dtype, device=self.frame.device)
        return ((self.frame - self.executed).abs()[0] / deviation[:, None, None]).mean(0)


@dataclass(frozen=True)
class Outcome:
    """What came of a decision.

    Attributes:
        executed: bool [rows, cols], the blocks that ran: the decision, and blocks past their maximum age.
        forced: bool [rows, cols]: executed only because of their age.
        gain: computes the information gain, float [rows, cols]; a call, since only frames that train need it.
    """

    executed: torch.Tensor
    forced: torch.Tensor
    gain: Callable[[], torch.Tensor]


class Policy(ABC):
    """Chooses blocks. First frames pass it by; of frames whose blocks are all forced it learns nothing.

    For every other frame `next_frame`, `decide`, `executes` and `observe` are called in this order. The last three
    compute with tensors and with the stream's numbers, and change nothing but what `lasting` names: where the frame
    does not count, as at a scene cut, that is put back; and on a device frames of one `kind` run again as they were
    recorded.

    Attributes:
        needs_output: whether `Context.output` and `Outcome.gain` are asked for.
        refreshes: whether scene cuts and the maximum age apply.
        macs: multiply-adds that the last frame's decision and training cost.
    """

    needs_output = False
    refreshes = True
    macs = 0

    def __init__(self, target: float, seed: int) -> None:
        self.target = target
        self.seed = seed
        self.frozen = False

    def begin(self, frame: torch.Tensor, output: torch.Tensor | None, numbers: Numbers = HOST) -> None:  # noqa: B027
        """Sees the first frame of a stream and its output, as in `Context`, before any other frame.

        Args:
            numbers: of the stream, which decide where it computes.

        Raises:
            SparseBlockError: what was loaded is of another network or task.
        """

    def next_frame(self) -> None:  # noqa: B027
        """Counts a frame. Does nothing by default."""

    @abstractmethod
    def decide(self, context: Context) -> torch.Tensor:
        """The blocks to execute, bool [rows, cols]."""

    def executes(self, executed: torch.Tensor) -> None:  # noqa: B027
        """Takes in the blocks that the network is about to run, bool [rows, cols]. Does nothing by default."""

    def observe(self, outcome: Outcome) -> None:  # noqa: B027
        """Learns from what came of the last decision. Does nothing by default."""

    @property
    def kind(self) -> Any:
        """What is different from frame to frame in what these call. None: anything may be."""
        return None

    @property
    def lasting(self) -> Lasting:
        """The attributes that last from frame to frame, from the stream's first frame on: numbers and tensors."""
        return ()

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """What `decide` draws from."""
        return ()

    def reset(self) -> None:  # noqa: B027
        """Forgets the stream, not what was learned. Does nothing by default."""

    def state_dict(self) -> dict:
        """What was learned, of plain numbers and tensors on the host."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Takes up what `state_dict` gave. May raise anything for another state, and is of no use then."""
        if not isinstance(state, dict):
            raise TypeError(f"the policy's state is {type(state).__name__}, not a dict")
