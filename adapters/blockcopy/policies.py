"""The policies by name: BlockCopy's, and what to compare it with."""

from __future__ import annotations

import math

import torch

from blockcopy.information_gain import Task
from blockcopy.numbers import HOST, UNKNOWN, Number, Numbers, plain
from blockcopy.policy import Context, Lasting, Outcome, Policy
from blockcopy.policy_file import number
from blockcopy.policy_network import PolicyNetwork, inputs, summaries
from blockcopy.reward import TargetControl
from blockcopy.trainer import Trainer, Training
from blockcopy.view import block_mean, grid_of, spread
from sparseblock import SparseBlockError
from sparseblock.seeded import Seeded

CHANGE_MOMENTUM = 0.99


class Dice:
    """Seeded random numbers on the device of the stream."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._saved: dict | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def begin(self, device: torch.device) -> None:
        """Goes to `device`. Devices of another type than the saved one roll other numbers, from the seed on."""
        if self.generator.device.type != device.type:
            self.generator = torch.Generator(device).manual_seed(self._seed)
        if self._saved is not None and self._saved["device"] == device.type:
            self.generator.set_state(self._saved["state"])
        self._saved = None

    def roll(self, grid: tuple[int, int]) -> torch.Tensor:
        """float32 [rows, cols] in [0, 1)."""
        return torch.rand(grid, generator=self.generator, device=self.generator.device)

    def state_dict(self) -> dict:
        return self._saved or {"device": self.generator.device.type, "state": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Raises TypeError where it is no such state."""
        if not isinstance(state, dict) or not isinstance(state["device"], str):
            raise TypeError("generator is no state of one")
        if state["device"] == "cpu":
            torch.Generator().set_state(state["state"])  # raises
        elif not isinstance(state["state"], torch.Tensor) or state["state"].dtype != torch.uint8:
            raise TypeError("generator is no state of one")
        self._saved = state


class BlockCopyPolicy(Policy):
    """Samples blocks from the policy network and trains it online. The network is made for the first frame it sees."""

    needs_output = True

    def __init__(self, target: float, seed: int, task: Task, training: Training) -> None:
        super().__init__(target, seed)
        self.task = task
        self.training = training
        self.dice = Dice(seed)
        self.trainer: Trainer | None = None
        self._change_level: Number = UNKNOWN
        self._logits: torch.Tensor | None = None
        self._saved: dict | None = None

    def begin(self, frame: torch.Tensor, output: torch.Tensor, numbers: Numbers = HOST) -> None:
        self._grid = grid_of(frame)
        if self.trainer is None:
            self.trainer = self._make_trainer(frame, output, numbers)
            self._change_level = numbers.of(float(self._change_level))
            self.dice.begin(frame.device)

    def next_frame(self) -> None:
        self.macs = self.trainer.network.macs(*self._grid)
        if not self.frozen:
            self.trainer.frames += 1
            if self.trainer.due:
                self.macs *= 3  # the backward pass: once more for the inputs' gradients, once for the weights'

    @property
    def kind(self) -> tuple[bool, bool]:
        """(whether it learns, whether the frame trains)"""
        return not self.frozen, not self.frozen and self.trainer.due

    @property
    def lasting(self) -> Lasting:
        return *self.trainer.lasting, (self, "_change_level")

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return (self.dice.generator,)

    def decide(self, context: Context) -> torch.Tensor:
        momentum = 1.0 if self.frozen else CHANGE_MOMENTUM
        pixels, summary, self._change_level = inputs(context, self.task, self._change_level, momentum)
        self._logits = self.trainer.logits(pixels, summary, learn=not self.frozen)
        return self.dice.roll(context.grid) < self._logits.sigmoid()

    def executes(self, executed: torch.Tensor) -> None:
        if not self.frozen:
            self.trainer.executes(executed)

    def observe(self, outcome: Outcome) -> None:
        if not self.frozen:
            self.trainer.observe(self._logits, outcome)

    def _make_trainer(self, frame: torch.Tensor, output: torch.Tensor, numbers: Numbers) -> Trainer:
        channels = (frame.shape[1], output.shape[1], summaries(self.task))
        with Seeded(self.seed):
            network = PolicyNetwork(*channels, device=frame.device)
        trainer = Trainer(network, self.target, self.training, numbers)
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
            "change_level": plain(self._change_level),
            "generator": self.dice.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        if state:
            self._try(state["trainer"])
            level = state["change_level"]
            self._change_level = UNKNOWN if level is None else number(level, "change_level")
            self.dice.load_state_dict(state["generator"])
        self.trainer = None
        self._saved = state or None

    def _try(self, state: dict) -> None:
        """Loads a trainer's state into one that is made to its measure, so that what is wrong with it shows now.

        Whether it is also the measure of this network and task shows on the first frame.
        """
        inner, summary = state["network"]["body.0.weight"].shape[1], len(state["network"]["summary.weight"])
        with Seeded(0):
            trainer = Trainer(PolicyNetwork(0, inner - 2, summary), self.target, self.training)
        trainer.load_state_dict(state)


class AllPolicy(Policy):
    """Every block of every frame: the dense network."""

    def decide(self, context: Context) -> torch.Tensor:
        return torch.ones_like(context.active)


class NonePolicy(Policy):
    """No block after the first frame, come what may: what the first frame alone is worth."""

    refreshes = False

    def decide(self, context: Context) -> torch.Tensor:
        return torch.zeros_like(context.active)


class RandomPolicy(Policy):
    """Each block with probability `target`."""

    def __init__(self, target: float, seed: int) -> None:
        super().__init__(target, seed)
        self.dice = Dice(seed)

    def begin(self, frame: torch.Tensor, output: torch.Tensor | None, numbers: Numbers = HOST) -> None:
        self.dice.begin(frame.device)

    def decide(self, context: Context) -> torch.Tensor:
        return self.dice.roll(context.grid) < self.target

    def state_dict(self) -> dict:
        return {"generator": self.dice.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.dice.load_state_dict(state["generator"])


class StaticPolicy(Policy):
    """A fixed schedule that looks at nothing: blocks in an order in which neighbours lie far apart, `target` of them
    a frame.

    Every block comes again after at most ceil(1 / target) frames; executed blocks differ by at most one from frame to
    frame.
    """

    def __init__(self, target: float, seed: int) -> None:
        super().__init__(target, seed)
        self._frame = 0

    def begin(self, frame: torch.Tensor, output: torch.Tensor | None, numbers: Numbers = HOST) -> None:
        count = math.prod(grid_of(frame))
        self._place = torch.argsort(torch.argsort(spread(count))).view(grid_of(frame)).to(frame.device)

    def next_frame(self) -> None:
        self._frame += 1

    def decide(self, context: Context) -> torch.Tensor:
        count = self._place.numel()
        begin, end = (math.floor(frame * self.target * count) for frame in (self._frame - 1, self._frame))
        return (self._place - begin) % count < end - begin

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
        self._numbers = HOST
        self._window: torch.Tensor | None = None  # [WINDOW, blocks], NaN where there was no frame yet
        self._saved: list[torch.Tensor] = []

    def begin(self, frame: torch.Tensor, output: torch.Tensor | None, numbers: Numbers = HOST) -> None:
        self._numbers = numbers
        self.control.begin(numbers)
        rows, cols = grid_of(frame)
        if self._window is None:
            self._window = torch.full((self.WINDOW, rows * cols), math.nan, device=frame.device)
            for place, seen in enumerate(reversed(self._saved), 1):
                if len(seen) != rows * cols:
                    raise SparseBlockError(
                        f"BlockCopy: the saved policy is of frames of {len(seen)} blocks but these have {rows * cols}; "
                        "load a policy that was saved with the same frame and block size"
                    )
                self._window[-place] = seen
            self._learns_first, self._saved = not self._saved, []
        self._tie = self.TIE * spread(rows * cols).float().view(rows, cols).to(frame.device)

    def decide(self, context: Context) -> torch.Tensor:
        difference = block_mean(context.change, context.grid) + (self._tie + self.TIE * context.age)
        if not self.frozen or self._learns_first:
            self._window = torch.cat([self._window[1:], difference.flatten()[None]])
            self._learns_first = False
        share = self._numbers.sigmoid(self.control.level)
        place = torch.as_tensor(1 - share, dtype=difference.dtype, device=difference.device)
        return difference >= torch.nanquantile(self._window, place)

    def executes(self, executed: torch.Tensor) -> None:
        if not self.frozen:
            share = self._numbers.total(lambda ran: ran, executed) / executed.numel()
            self.control.update(share)

    @property
    def lasting(self) -> Lasting:
        return (self.control, "level"), (self, "_window")

    def state_dict(self) -> dict:
        rows = self._saved if self._window is None else [row for row in self._window.cpu() if not row.isnan().any()]
        return {"level": plain(self.control.level), "window": rows}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        level, window = number(state["level"], "level"), list(state["window"])
        if not all(isinstance(seen, torch.Tensor) and seen.dim() == 1 and seen.is_floating_point() for seen in window):
            raise TypeError("window is no list of differences")
        self.control.level, self._window, self._saved = level, None, window[-self.WINDOW :]


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
