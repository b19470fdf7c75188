"""Reward and target: what a decision was worth, and what keeps the share of executed blocks at its target."""

from __future__ import annotations

import math
import statistics

import torch

MOMENTUM = 0.9
"""m of the moving average M_t (BlockCopy, section 3.2), and of the other running means here."""

LEVEL_LIMIT = 60.0
"""Bound of TargetControl.level, in logits: what the centred logits, within 48 of 0, can ask for and 12 more."""


def cost_reward(share: float, target: float) -> float:
    """R_c = -(M_t - target) |M_t - target|: positive below the target, negative above (BlockCopy, equation 6)."""
    return -(share - target) * abs(share - target)


def policy_gradient(
    logits: torch.Tensor, executed: torch.Tensor, reward: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """The gradient with respect to the logits of mean_b[ -log pi(a_b) * (R_b if executed else -R_b) ] over the blocks
    that the policy decided on (BlockCopy, section 3.2): with p = sigmoid(logit), that of log pi(a) is a - p.

    Args:
        logits: float [rows, cols]; the policy executes block b with probability sigmoid(logit_b).
        executed: bool [rows, cols], the actions.
        reward: R_b, float [rows, cols].
        chosen: bool [rows, cols]: False where the action was not the policy's (a block past its maximum age).
    """
    of_log_pi = executed.float() - logits.sigmoid()
    return -of_log_pi * torch.where(executed, reward, -reward) * chosen / logits.numel()


class MovingShare:
    """M_t, the moving average of the executed share. It starts at the target and is not shown frames forced dense."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.value = target

    def update(self, share: float) -> None:
        self.value = MOMENTUM * self.value + (1 - MOMENTUM) * share


class TargetControl:
    """Integral control: a level added to every logit, lowered while more than the target is executed.

    level_{t+1} = level_t - gain * (share_t - target), so over T frames the mean share misses the target by exactly
    (level_0 - level_T) / (gain * T): with a bounded level the miss goes to zero as 1/T.
    """

    def __init__(self, target: float, gain: float = 4.0) -> None:
        self.target = target
        self.gain = gain
        safe = min(max(target, 1e-3), 1 - 1e-3)
        self.level = math.log(safe / (1 - safe))

    def update(self, share: float) -> None:
        self.level = min(max(self.level - self.gain * (share - self.target), -LEVEL_LIMIT), LEVEL_LIMIT)


class Centre:
    """Running mean of all logits of a frame. What drifts in common is taken off, so the level need not run after it."""

    def __init__(self) -> None:
        self.value: float | None = None

    def update(self, logits: torch.Tensor) -> None:
        mean = statistics.fmean(logits.flatten().tolist())
        self.value = mean if self.value is None else MOMENTUM * self.value + (1 - MOMENTUM) * mean


class GainScale:
    """Running scale and baseline of the information gain: makes gains of any task comparable, and centres them.

    `scale` is the running mean gain of executed blocks. `baseline` is the running mean, weighted by 1 - pi, of the
    scaled gain: with it the expected gradient on a value common to all logits is zero, so learning ranks blocks and
    leaves how many are executed to TargetControl.
    """

    def __init__(self) -> None:
        self.scale = 0.0
        self._sum = 0.0
        self._weight = 0.0

    @property
    def baseline(self) -> float:
        return self._sum / self._weight if self._weight else 0.0

    def update(self, gain: torch.Tensor, probability: torch.Tensor) -> None:
        """Takes in the gains and probabilities, both float [n], of the blocks that the policy chose to execute.

        In plain numbers: there are few, and an operator of torch would take longer than the sum.
        """
        gains, weights = gain.tolist(), [1 - p for p in probability.tolist()]
        if not gains:
            return
        mean = statistics.fmean(gains)
        self.scale = MOMENTUM * self.scale + (1 - MOMENTUM) * mean if self._weight else mean
        weighted = sum(weight * g for weight, g in zip(weights, gains, strict=True)) / (self.scale or 1.0)
        self._sum = MOMENTUM * self._sum + (weighted if self.scale > 0 else 0.0)
        self._weight = MOMENTUM * self._weight + sum(weights)

    def scaled(self, gain: torch.Tensor) -> torch.Tensor:
        """Gain in units of the running mean; all zero as long as nothing was ever gained."""
        return gain / self.scale if self.scale > 0 else torch.zeros_like(gain)

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "sum": self._sum, "weight": self._weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self._sum, self._weight = state["scale"], state["sum"], state["weight"]
