"""Streams without a network: blocks with known gains, so that the best policy is known."""

from __future__ import annotations

import torch
from blockcopy.information_gain import log_probabilities, task_named
from blockcopy.policy import Context, Outcome, Policy
from blockcopy.view import PIXELS, enlarge

SEGMENTATION = task_named("segmentation")


class Bandit:
    """Hot blocks gain `gain` whenever they are executed, the others next to nothing.

    With `by="change"` hot blocks show new pixels in every frame; with `by="appearance"` they are bright, and still.
    """

    def __init__(self, rows: int, cols: int, hot: int, by: str = "change", gain: float = 0.05, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.hot = torch.zeros(rows * cols, dtype=torch.bool)
        self.hot[torch.randperm(rows * cols, generator=self.generator)[:hot]] = True
        self.hot = self.hot.view(rows, cols)
        self.by = by
        self.gain = gain
        self.still = self._noise()
        self.executed = self.frame()
        self.active = torch.ones_like(self.hot)
        self.age = torch.zeros(rows, cols, dtype=torch.int64)
        self.output = log_probabilities(torch.randn(1, 4, rows * 2, cols * 2, generator=self.generator))

    def frame(self) -> torch.Tensor:
        hot = enlarge(self.hot, PIXELS)
        if self.by == "appearance":
            return self.still + 2 * hot
        return torch.where(hot, self._noise(), self.still)

    def context(self) -> Context:
        return Context(self.frame(), self.executed, self.output, self.active, self.age, (0.0,) * 3, (1.0,) * 3)

    def play(self, policy: Policy, frames: int) -> torch.Tensor:
        """The blocks that the policy executed, bool [frames, rows, cols]."""
        played = []
        for _ in range(frames):
            context = self.context()
            policy.begin(context.frame, context.output)
            policy.next_frame()
            mask = policy.decide(context)
            gain = torch.where(mask, torch.where(self.hot, self.gain, self.gain / 50), 0.0)
            self.executed = torch.where(enlarge(mask, PIXELS), context.frame, self.executed)
            self.age = (self.age + 1).masked_fill(mask, 0)
            self.active = mask
            policy.executes(mask)
            policy.observe(Outcome(mask, torch.zeros_like(mask), lambda gain=gain: gain))
            played.append(mask)
        return torch.stack(played)

    def _noise(self) -> torch.Tensor:
        rows, cols = self.hot.shape
        return torch.randn(1, 3, rows * PIXELS, cols * PIXELS, generator=self.generator)
