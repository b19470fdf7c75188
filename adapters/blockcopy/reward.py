"""Reward and target: what a decision was worth, and what keeps the share of executed blocks at its target."""

from __future__ import annotations

import math

import torch

from blockcopy.numbers import HOST, UNKNOWN, Number, Numbers, known

MOMENTUM = 0.9
"""m of the moving average M_t (BlockCopy, section 3.2), and of the other running means here."""

LEVEL_LIMIT = 60.0
"""Bound of TargetControl.level, in logits: what the centred logits, within 48 of 0, can ask for and 12 more."""


def cost_reward(share: Number, target: float) -> Number:
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


def running_mean(mean: Number, value: Number, momentum: float = MOMENTUM) -> Number:
    if isinstance(mean, torch.Tensor):
        return torch.lerp(mean, value.to(mean.dtype), 1 - momentum)  # the same in one operator
    return momentum * mean + (1 - momentum) * value


class MovingShare:
    """M_t, the moving average of the executed share. It starts at the target and is not shown frames forced dense."""

    def __init__(self, target: float, numbers: Numbers = HOST) -> None:
        self.target = target
        self.value = numbers.of(target)

    def update(self, share: Number) -> None:
        self.value = running_mean(self.value, share)


class TargetControl:
    """Integral control: a level added to every logit, lowered while more than the target is executed.

    level_{t+1} = level_t - gain * (share_t - target), so over T frames the mean share misses the target by exactly
    (level_0 - level_T) / (gain * T): with a bounded level the miss goes to zero as 1/T.
    """

    def __init__(self, target: float, gain: float = 4.0, numbers: Numbers = HOST) -> None:
        self.target = target
        self.gain = gain
        self._numbers = numbers
        safe = min(max(target, 1e-3), 1 - 1e-3)
        self.level = numbers.of(math.log(safe / (1 - safe)))

    def begin(self, numbers: Numbers) -> None:
        """Goes on with other numbers."""
        self._numbers, self.level = numbers, numbers.of(float(self.level))

    def update(self, share: Number) -> None:
        self.level = self._numbers.clamp(self.level - self.gain * (share - self.target), -LEVEL_LIMIT, LEVEL_LIMIT)


class Centre:
    """Running mean of all logits of a frame. What drifts in common is taken off, so the level need not run after it."""

    def __init__(self, numbers: Numbers = HOST) -> None:
        self._numbers = numbers
        self.value = numbers.of(UNKNOWN)

    def update(self, logits: torch.Tensor, learn: bool) -> None:
        """Takes in a frame's logits; without `learn` only those of the first."""
        mean = self._numbers.total(lambda logit: logit, logits) / logits.numel()
        seen = running_mean(self.value, mean) if learn else self.value
        self.value = self._numbers.where(known(self.value), seen, mean)


class GainScale:
    """Running scale and baseline of the information gain: makes gains of any task comparable, and centres them.

    `scale` is the running mean gain of executed blocks. `baseline` is the running mean, weighted by 1 - pi, of the
    scaled gain: with it the expected gradient on a value common to all logits is zero, so learning ranks blocks and
    leaves how many are executed to TargetControl.
    """

    def __init__(self, numbers: Numbers = HOST) -> None:
        self._numbers = numbers
        self.scale, self.sum, self.weight = (numbers.of(0.0) for _ in range(3))

    @property
    def baseline(self) -> Number:
        return self._numbers.ratio(self.sum, self.weight)

    def update(self, gain: torch.Tensor, probability: torch.Tensor, chosen: torch.Tensor) -> None:
        """Takes in the gains and probabilities of blocks; `chosen`, bool: those that the policy chose to execute.

        Without any, all stays as it is.
        """
        numbers, maps = self._numbers, (gain, probability, chosen)
        count = numbers.total(lambda c: c, chosen)
        mean = numbers.ratio(numbers.total(lambda g, c: c * g, gain, chosen), count)
        weight = numbers.total(lambda p, c: c * (1 - p), probability, chosen)
        weighted = numbers.total(lambda g, p, c: c * (1 - p) * g, *maps)
        scale = numbers.where(self.weight > 0, running_mean(self.scale, mean), mean)
        new = scale, MOMENTUM * self.sum + numbers.ratio(weighted, scale), MOMENTUM * self.weight + weight
        old = self.scale, self.sum, self.weight
        self.scale, self.sum, self.weight = (numbers.where(count > 0, x, y) for x, y in zip(new, old, strict=True))

    def scaled(self, gain: torch.Tensor) -> torch.Tensor:
        """Gain in units of the running mean; all zero as long as nothing was ever gained."""
        return gain * self._numbers.ratio(self._numbers.of(1.0), self.scale)

    def state_dict(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in ("scale", "sum", "weight")}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.sum, self.weight = (self._numbers.of(state[name]) for name in ("scale", "sum", "weight"))
