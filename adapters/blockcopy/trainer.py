"""Online training of the policy network: REINFORCE on one frame at a time, RMSprop."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from blockcopy.policy import Outcome
from blockcopy.policy_file import number
from blockcopy.policy_network import PolicyNetwork
from blockcopy.reward import Centre, GainScale, MovingShare, TargetControl, cost_reward, policy_gradient
from sparseblock import SparseBlockError

REWARDS = ("balanced", "paper")


@dataclass(frozen=True)
class Training:
    """How the policy learns.

    Attributes:
        reward: "paper": R_b = IG_b + gamma R_c, as published; it overshoots the target, since IG_b is never negative.
            "balanced": R_b = IG_b / scale - baseline + gamma R_c for executed blocks and gamma R_c for the others, with
            integral control of the target (see reward.py and docs/design/0004-policy.md).
        interval: an update every so many frames, on that frame alone.
        gamma: weight of R_c.
        lr: learning rate of the network's body.
        summary_lr: learning rate of its linear part.
        weight_decay: of RMSprop.
    """

    reward: str = "balanced"
    interval: int = 4
    gamma: float = 5.0
    lr: float = 1e-4
    summary_lr: float = 0.5
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise SparseBlockError(
                f"BlockCopy: no reward is named {self.reward!r}; the rewards are {', '.join(REWARDS)}"
            )
        for name in ("gamma", "lr", "summary_lr", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
                raise SparseBlockError(f"BlockCopy: {name} is {value!r}; it must be a finite number, at least 0")


class RMSprop:
    """torch.optim.RMSprop on the flat parameters of a policy network, in a few operators for all of them.

    Attributes:
        square_average: of the gradient, as the parameters lie.
    """

    MOMENTUM, EPSILON = 0.99, 1e-8

    def __init__(self, network: PolicyNetwork, training: Training) -> None:
        self._parameters = network.parameters
        self._rates = torch.full_like(network.parameters, training.lr)
        self._rates[-len(network.summary) :] = training.summary_lr
        self._decay = training.weight_decay
        self.square_average = torch.zeros_like(network.parameters)

    def step(self, gradient: torch.Tensor) -> None:
        """One update; `gradient` is used up."""
        gradient.add_(self._parameters, alpha=self._decay)
        self.square_average.mul_(self.MOMENTUM).addcmul_(gradient, gradient, value=1 - self.MOMENTUM)
        scale = self.square_average.sqrt().add_(self.EPSILON)
        self._parameters.addcdiv_(gradient.mul_(self._rates), scale, value=-1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"square_average": self.square_average}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Raises ValueError where the state is of another network."""
        if state["square_average"].shape != self.square_average.shape:
            raise ValueError(f"optimizer: {list(state['square_average'].shape)} for {list(self.square_average.shape)}")
        self.square_average.copy_(state["square_average"])


class Trainer:
    """Holds everything that changes while the policy learns: network, optimizer, running means, level."""

    def __init__(self, network: PolicyNetwork, target: float, training: Training) -> None:
        self.network = network
        self.training = training
        self.share = MovingShare(target)
        self.control = TargetControl(target)
        self.centre = Centre()
        self.gains = GainScale()
        self.frames = 0
        self._seen: tuple[torch.Tensor, ...] = ()  # of the frame that trains: what the network read and gave
        self.optimizer = RMSprop(network, training)

    @property
    def balanced(self) -> bool:
        return self.training.reward == "balanced"

    @property
    def due(self) -> bool:
        """Whether the frame that comes next trains."""
        return (self.frames + 1) % self.training.interval == 0

    def logits(self, pixels: torch.Tensor, summary: torch.Tensor, learn: bool) -> torch.Tensor:
        """The network's logits, centred, plus the level that keeps the target: [rows, cols].

        With `learn` the centre takes this frame in, and where the frame trains, what the gradient needs is kept.
        """
        logits, maps = self.network(pixels, summary)
        if learn and self.due:
            self._seen = (pixels, summary, logits, maps)
        if not self.balanced:
            return logits
        if learn or self.centre.value is None:
            self.centre.update(logits)
        return logits + (self.control.level - self.centre.value)

    def observe(self, logits: torch.Tensor, outcome: Outcome) -> bool:
        """Takes in the outcome of a frame; updates the network where the frame was due. Returns whether it did."""
        due = self.due
        self.frames += 1
        share = int(outcome.executed.count_nonzero()) / outcome.executed.numel()
        self.share.update(share)
        if due:
            self._update(logits, outcome)
        self.control.update(share)
        return due

    def _update(self, logits: torch.Tensor, outcome: Outcome) -> None:
        reward = self.reward(outcome.gain(), logits.sigmoid(), outcome)
        grad = policy_gradient(logits, outcome.executed, reward, ~outcome.forced)
        self.optimizer.step(self.network.gradient(grad, *self._seen))

    def reward(self, gain: torch.Tensor, probability: torch.Tensor, outcome: Outcome) -> torch.Tensor:
        """R_b, float [rows, cols], of the information gains and the probabilities of execution, both [rows, cols]."""
        cost = self.training.gamma * cost_reward(self.share.value, self.share.target)
        if not self.balanced:
            return gain + cost
        chosen = outcome.executed & ~outcome.forced
        self.gains.update(gain[chosen], probability[chosen])
        advantage = self.gains.scaled(gain) - self.gains.baseline
        return torch.where(outcome.executed, advantage, advantage.new_zeros(())) + cost

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "share": self.share.value,
            "level": self.control.level,
            "centre": self.centre.value,
            "gains": self.gains.state_dict(),
            "frames": self.frames,
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.share.value = number(state["share"], "share")
        self.control.level = number(state["level"], "level")
        self.centre.value = None if state["centre"] is None else number(state["centre"], "centre")
        self.gains.load_state_dict({name: number(value, name) for name, value in state["gains"].items()})
        self.frames = int(number(state["frames"], "frames"))
