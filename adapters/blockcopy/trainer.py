"""Online training of the policy network: REINFORCE on one frame at a time, RMSprop."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch

from blockcopy.numbers import HOST, UNKNOWN, Numbers, plain
from blockcopy.policy import Lasting, Outcome
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
        self._network = network
        self._rates = torch.full_like(network.parameters, training.lr)
        self._rates[-network.summaries - 1 :] = training.summary_lr
        self._decay = training.weight_decay
        self.square_average = torch.zeros_like(network.parameters)

    def step(self, gradient: torch.Tensor) -> None:
        """One update; `gradient` is used up."""
        parameters = self._network.parameters
        gradient.add_(parameters, alpha=self._decay)
        average = self.square_average * self.MOMENTUM
        self.square_average = average.addcmul_(gradient, gradient, value=1 - self.MOMENTUM)
        scale = self.square_average.sqrt().add_(self.EPSILON)
        self._network.parameters = torch.addcdiv(parameters, gradient.mul_(self._rates), scale, value=-1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"square_average": self.square_average.cpu()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Raises ValueError where the state is of another network."""
        if state["square_average"].shape != self.square_average.shape:
            raise ValueError(f"optimizer: {list(state['square_average'].shape)} for {list(self.square_average.shape)}")
        self.square_average.copy_(state["square_average"])


class Trainer:
    """Holds everything that changes while the policy learns: network, optimizer, running means, level.

    Attributes:
        frames: frames that came while it learned, forced ones too; the host counts them, so that it knows which train.
    """

    def __init__(self, network: PolicyNetwork, target: float, training: Training, numbers: Numbers = HOST) -> None:
        self.network = network
        self.training = training
        self._numbers = numbers
        self.share = MovingShare(target, numbers)
        self.control = TargetControl(target, numbers=numbers)
        self.centre = Centre(numbers)
        self.gains = GainScale(numbers)
        self.frames = 0
        self._seen: tuple[Any, ...] = ()  # of the frame that trains: what the network read and gave
        self.optimizer = RMSprop(network, training)

    @property
    def lasting(self) -> Lasting:
        """See Policy.lasting."""
        gains = ((self.gains, name) for name in ("scale", "sum", "weight"))
        averages = (self.share, "value"), (self.control, "level"), (self.centre, "value"), *gains
        return *averages, (self.network, "parameters"), (self.optimizer, "square_average")

    @property
    def balanced(self) -> bool:
        return self.training.reward == "balanced"

    @property
    def due(self) -> bool:
        """Whether the frame trains."""
        return self.frames % self.training.interval == 0

    def logits(self, pixels: torch.Tensor, summary: torch.Tensor, learn: bool) -> torch.Tensor:
        """The network's logits, centred, plus the level that keeps the target: [rows, cols].

        With `learn` the centre takes this frame in, and where the frame trains, what the gradient needs is kept.
        """
        logits, maps = self.network(pixels, summary)
        if learn and self.due:
            self._seen = (pixels, summary, logits, maps)
        if not self.balanced:
            return logits
        self.centre.update(logits, learn)
        return logits + (self.control.level - self.centre.value)

    def executes(self, executed: torch.Tensor) -> None:
        """Takes in the share of blocks that a frame executes."""
        share = self._numbers.total(lambda ran: ran, executed) / executed.numel()
        self.share.update(share)
        self.control.update(share)

    def observe(self, logits: torch.Tensor, outcome: Outcome) -> None:
        """Updates the network where the frame is due."""
        if self.due:
            reward = self.reward(outcome.gain(), logits.sigmoid(), outcome)
            grad = policy_gradient(logits, outcome.executed, reward, ~outcome.forced)
            self.optimizer.step(self.network.gradient(grad, *self._seen))
            self._seen = ()

    def reward(self, gain: torch.Tensor, probability: torch.Tensor, outcome: Outcome) -> torch.Tensor:
        """R_b, float [rows, cols], of the information gains and the probabilities of execution, both [rows, cols]."""
        cost = self.training.gamma * cost_reward(self.share.value, self.share.target)
        if not self.balanced:
            return gain + cost
        self.gains.update(gain, probability, outcome.executed & ~outcome.forced)
        advantage = self.gains.scaled(gain) - self.gains.baseline
        return torch.where(outcome.executed, advantage, advantage.new_zeros(())) + cost

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "share": plain(self.share.value),
            "level": plain(self.control.level),
            "centre": plain(self.centre.value),
            "gains": self.gains.state_dict(),
            "frames": self.frames,
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        of = self._numbers.of
        self.share.value = of(number(state["share"], "share"))
        self.control.level = of(number(state["level"], "level"))
        self.centre.value = of(UNKNOWN if state["centre"] is None else number(state["centre"], "centre"))
        self.gains.load_state_dict({name: number(value, name) for name, value in state["gains"].items()})
        self.frames = int(number(state["frames"], "frames"))
