"""The policies by name: BlockCopy's, and what to compare it with."""

from __future__ import annotations

import math

import torch

from blockcopy.information_gain import Task
from blockcopy.policy import Context, Outcome, Policy
from blockcopy.policy_file import number
from blockcopy.policy_network import PolicyNetwork, inputs, summaries
from blockcopy.reward import TargetControl
from blockcopy.trainer import Trainer, Training
from blockcopy.view import block_mean, spread
from sparseblock import SparseBlockError

CHANGE_MOMENTUM = 0.99


class BlockCopyPolicy(Policy):
    """Samples blocks from the policy network and trains it online. The network is made for the first frame it sees."""

    needs_output = True

    def __init__(self, target: float, seed: int, task: Task, training: Training) -> None:
        super().__init__(target, seed)
        self.task = task
        self.training = training
        self.generator = torch.Generator().manual_seed(seed)
        self.trainer: Trainer | None = None
        self._change_level: float | None = None
        self._logits: torch.Tensor | None = None
        self._saved: dict | None = None

    def begin(self, frame: torch.Tensor, output: torch.Tensor) -> None:
        if self.trainer is None:
            self.trainer = self._make_trainer(frame, output)

    def decide(self, context: Context) -> torch.Tensor:
        self.begin(context.frame, context.output)
        momentum = 1.0 if self.frozen else CHANGE_MOMENTUM
        pixels, summary, self._change_level = inputs(context, self.task, self._change_level, momentum)
        self._logits = self.trainer.logits(pixels, summary, learn=not self.frozen)
        self.macs = self.trainer.network.macs(*context.grid)
        probability = self._logits.sigmoid()
        return torch.rand(context.grid, generator=self.generator).to(probability.device) < probability

    def observe(self, outcome: Outcome) -> None:
        if not self.frozen and self.trainer.observe(self._logits, outcome):
            self.macs *= 3  # the backward pass: once more for the inputs' gradients, once for the weights'

    def _make_trainer(self, frame: torch.Tensor, output: torch.Tensor) -> Trainer:
        channels = (frame.shape[1], output.shape[1], summaries(self.task))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = PolicyNetwork(*channels)
        trainer = Trainer(network, self.target, self.training)
        if self._saved is not None:
            saved = self._saved["trainer"]
            for name, value in network.named.items():
                if name not in saved["network"] or saved["network"][name].shape != value.shape:
                    found = list(saved["network"][name].shape) if name in saved["network"] else "missing"
                    raise SparseBlockError(
                        f"BlockCopy: the saved policy's {name} is {found} but this network and task need "
                        f"{list(value.shape)}; load a policy that was saved with the same network"
                    )
            trainer.load_state_dict(saved)
            self._saved = None
        return trainer

    def state_dict(self) -> dict:
        if self.trainer is None:
            return self._saved or {}
        return {
            "trainer": self.trainer.state_dict(),
            "change_level": self._change_level,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        if state:
            self._try(state["trainer"])
            level = state["change_level"]
            self._change_level = None if level is None else number(level, "change_level")
            self.generator.set_state(state["generator"])
        self.trainer = None
        self._saved = state or None

    def _try(self, state: dict) -> None:
        """Loads a trainer's state into one that is made to its measure, so that what is wrong with it shows now.

        Whether it is also the measure of this network and task shows on the first frame.
        """
        inner, summary = state["network"]["body.0.weight"].shape[1], len(state["network"]["summary.weight"])
        with torch.random.fork_rng(devices=[]):
            trainer = Trainer(PolicyNetwork(0, inner - 2, summary), self.target, self.training)
        trainer.load_state_dict(state)


class AllPolicy(Policy):
    """Every block of every frame: the dense network."""

    def decide(self, context: Context) -> torch.Tensor:
        return torch.ones(context.grid, dtype=torch.bool)


class NonePolicy(Policy):
    """No block after the first frame, come what may: what the first frame alone is worth."""

    refreshes = False

    def decide(self, context: Context) -> torch.Tensor:
        return torch.zeros(context.grid, dtype=torch.bool)


class RandomPolicy(Policy):
    """Each block with probability `target`."""

    def __init__(self, target: float, seed: int) -> None:
        super().__init__(target, seed)
        self.generator = torch.Generator().manual_seed(seed)

    def decide(self, context: Context) -> torch.Tensor:
        return torch.rand(context.grid, generator=self.generator) < self.target

    def state_dict(self) -> dict:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])


class StaticPolicy(Policy):
    """A fixed schedule that looks at nothing: blocks in an order in which neighbours lie far apart, `target` of them
    a frame.

    Every block comes again after at most ceil(1 / target) frames; executed blocks differ by at most one from frame to
    frame.
    """

    def __init__(self, target: float, seed: int) -> None:
        super().__init__(target, seed)
        self._frame = 0

    def decide(self, context: Context) -> torch.Tensor:
        rows, cols = context.grid
        count = rows * cols
        begin, end = (math.floor(frame * self.target * count) for frame in (self._frame, self._frame + 1))
        self._frame += 1
        order = torch.argsort(spread(count))
        mask = torch.zeros(count, dtype=torch.bool)
        mask[order[torch.arange(begin, end) % count]] = True
        return mask.view(rows, cols)

    def reset(self) -> None:
        self._frame = 0


class DifferencePolicy(Policy):
    """Blocks whose pixels differ from those last executed by more than a threshold: the heuristic one would try first.

    The difference is the mean absolute one over the block, at the policy's resolution. The threshold is the quantile
    of the last WINDOW frames' differences above which a share lies; that share starts at the target and is steered by
    integral control, as BlockCopy's level is, until the target is executed. Of equal differences the older block
    counts as larger.
    """

    WINDOW = 32
    TIE = 1e-6

    def __init__(self, target: float, seed: int) -> None:
        super().__init__(target, seed)
        self.control = TargetControl(target)
        self._window: list[torch.Tensor] = []

    def decide(self, context: Context) -> torch.Tensor:
        difference = block_mean(context.change, context.grid)
        difference = difference + self.TIE * (context.age + spread(context.age.numel()).float().view(context.grid))
        if not self.frozen or not self._window:
            self._window = [*self._window[1 - self.WINDOW :], difference.flatten()]
        share = 1 / (1 + math.exp(-self.control.level))
        return difference >= torch.quantile(torch.cat(self._window), 1 - share)

    def observe(self, outcome: Outcome) -> None:
        if not self.frozen:
            self.control.update(outcome.executed.float().mean().item())

    def state_dict(self) -> dict:
        return {"level": self.control.level, "window": self._window}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        level, window = number(state["level"], "level"), list(state["window"])
        if not all(isinstance(seen, torch.Tensor) and seen.dim() == 1 and seen.is_floating_point() for seen in window):
            raise TypeError("window is no list of differences")
        self.control.level, self._window = level, window


_BASELINES = {
    "all": AllPolicy,
    "none": NonePolicy,
    "random": RandomPolicy,
    "static": StaticPolicy,
    "difference": DifferencePolicy,
}


def names() -> list[str]:
    """The names that BlockCopy's `policy` takes."""
    return ["blockcopy", *_BASELINES]


def make(name: str, target: float, seed: int, task: Task, training: Training) -> Policy:
    """The policy `name`.

    Raises:
        SparseBlockError: there is none of that name.
    """
    if name == "blockcopy":
        return BlockCopyPolicy(target, seed, task, training)
    if not isinstance(name, str) or name not in _BASELINES:
        raise SparseBlockError(f"BlockCopy: no policy is named {name!r}; the policies are {', '.join(names())}")
    return _BASELINES[name](target, seed)
