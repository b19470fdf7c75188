"""BlockCopy: a network on a video, recomputing per frame only the blocks that a policy chooses."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

import sparseblock
from blockcopy import policies, policy_file
from blockcopy.freshness import SceneCut, age_limits
from blockcopy.information_gain import task_named
from blockcopy.policy import Context, Outcome
from blockcopy.trainer import Training
from blockcopy.view import PolicyView, Standardise, where_blocks
from sparseblock import BlockGrid, SparseBlockError
from sparseblock.dense import channel_moments

FIRST_FRAME = "first frame"
SCENE_CUT = "scene cut"
POLICY = "policy"


@dataclass(frozen=True)
class FrameStats:
    """What one frame cost.

    Attributes:
        frame: number of the frame since the start or the last reset.
        reason: "first frame" or "scene cut", where every block runs; otherwise "policy".
        active_fraction: share of blocks that ran.
        aged: blocks that ran only because of their age.
        macs: multiply-adds of the network.
        policy_macs: multiply-adds of the policy, its training included.
        policy_ms: checking and shrinking the frame, looking for a scene cut, deciding.
        network_ms: the network.
        train_ms: reading the output, reward and update.
    """

    frame: int
    reason: str
    active_fraction: float
    aged: int
    macs: int
    policy_macs: int
    policy_ms: float
    network_ms: float
    train_ms: float


class BlockCopy:
    """Runs `model` over a video, block-sparse.

    Args:
        model: nn.Module in eval mode that takes a frame [1, c, h, w]. For the policy "blockcopy" it returns one tensor
            [1, k, h', w'], at the frame's size or a fraction of it.
        task: "segmentation" (the output is class logits; one channel: foreground or not) or "restoration" (the output
            is a picture). Decides the information gain.
        target: share of blocks to execute, in (0, 1], met on average over the frames on which there is a choice.
        block_size: side of a block in pixels.
        policy: name from `blockcopy.policies.names()`.
        seed: of the policy's initial weights and of its sampling. The global generator is neither read nor changed.
        max_age: a block is recomputed at the latest so many frames after it was; blocks fall due at different ages
            between half of it and all of it. None: never. It goes before the target.
        scene_cut: distance between consecutive frames above which everything is recomputed (see SceneCut); None: never.
        train_interval: an update of the policy every so many frames.
        reward, gamma, lr, summary_lr, weight_decay: see Training.

    Attributes:
        plan: the sparseblock Plan; None before the first frame.
        active: bool [rows, cols], the blocks that the last frame ran; None before the first frame.
        stats: FrameStats of the last frame; None before the first frame.

    Raises:
        SparseBlockError: an argument is out of its range or a name is unknown.

    Example:
        >>> video = BlockCopy(model, task="segmentation", target=0.3, block_size=128)
        >>> for frame in frames:
        ...     out = video(frame)
    """

    def __init__(
        self,
        model: nn.Module,
        task: str = "segmentation",
        target: float = 0.3,
        block_size: int = 128,
        policy: str = "blockcopy",
        seed: int = 0,
        max_age: int | None = 64,
        scene_cut: float | None = 0.4,
        train_interval: int = Training.interval,
        reward: str = Training.reward,
        gamma: float = Training.gamma,
        lr: float = Training.lr,
        summary_lr: float = Training.summary_lr,
        weight_decay: float = Training.weight_decay,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise SparseBlockError(f"BlockCopy: model is {type(model).__name__}; it must be an nn.Module in eval mode")
        if not _is_number(target) or not 0 < target <= 1:
            raise SparseBlockError(f"BlockCopy: target is {target!r}; it must be a share of blocks in (0, 1]")
        if not _is_count(block_size):
            raise SparseBlockError(
                f"BlockCopy: block_size is {block_size!r}; it must be a positive integer (pixels) below 2**31"
            )
        if max_age is not None and not _is_count(max_age):
            raise SparseBlockError(
                f"BlockCopy: max_age is {max_age!r}; it must be a positive integer (frames) below 2**31, or None"
            )
        if not _is_integer(seed) or not 0 <= seed < 2**63:
            raise SparseBlockError(f"BlockCopy: seed is {seed!r}; it must be an integer in [0, 2**63)")
        if scene_cut is not None and (not _is_number(scene_cut) or not 0 < scene_cut):
            raise SparseBlockError(f"BlockCopy: scene_cut is {scene_cut!r}; it must be a positive distance, or None")
        if not _is_count(train_interval):
            raise SparseBlockError(
                f"BlockCopy: train_interval is {train_interval!r}; it must be a positive integer (frames) below 2**31"
            )
        self.model = model
        self.task = task_named(task)
        self.target = float(target)
        self.block_size = block_size
        self.max_age = max_age
        self.policy_name = policy
        training = Training(reward, train_interval, gamma, lr, summary_lr, weight_decay)
        self._make_policy = partial(policies.make, policy, self.target, seed, self.task, training)
        self.policy = self._make_policy()
        self.plan: sparseblock.Plan | None = None
        self.active: torch.Tensor | None = None
        self.stats: FrameStats | None = None
        self._frame = 0
        self._cut = SceneCut(scene_cut) if scene_cut is not None and self.policy.refreshes else None
        self._standardise = Standardise()
        # Of the stream, per block: the small pixels when it was last executed, frames since, features of the output.
        self._executed: torch.Tensor | None = None
        self._age: torch.Tensor | None = None
        self._features: torch.Tensor | None = None

    # Training needs ordinary tensors, whatever mode the caller is in.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, frame: torch.Tensor) -> torch.Tensor:
        """Runs the next frame of the stream.

        Args:
            frame: float32 [1, c, h, w], any strides; every frame of a stream has the same shape.

        Returns:
            What the model returns for the frame, with every block as it was when it was last executed: a view of the
            network's cache, valid until the next frame. Clone what must outlive it.

        Raises:
            SparseBlockError: the frame is of another shape or type, or holds NaN or infinity. The stream stays as it
            was.
        """
        self._check(frame)
        view = self._view if self.plan else PolicyView(BlockGrid(*frame.shape[-2:], self.block_size))
        start = time.perf_counter()
        with _one_thread():
            small, finite = view.frame(frame)
            if not finite:
                raise SparseBlockError(
                    f"BlockCopy: frame {self._frame} holds NaN or infinity; the cache would keep it; "
                    "drop the frame or repair it"
                )
            reason = self._reason(small)
            chosen = self._decide(small, reason, view.grid)
            aged = self._due(chosen)
            mask = chosen | aged
        decided = time.perf_counter()
        if self.plan is None:
            self._make_plan(frame, view)
        begun = time.perf_counter()
        out = self.plan(frame, mask[None], self._state)
        ran = time.perf_counter()
        with _one_thread():
            self._learn(small, out, mask, aged, reason)
            self._remember(small, mask)
        learned = time.perf_counter()
        self.stats = FrameStats(
            frame=self._frame,
            reason=reason,
            active_fraction=mask.float().mean().item(),
            aged=int(aged.sum()),
            macs=self.plan.dense_macs + int(self.plan.block_macs[mask].sum()),
            policy_macs=self.policy.macs if reason == POLICY else 0,
            policy_ms=(decided - start) * 1e3,
            network_ms=(ran - begun) * 1e3,
            train_ms=(learned - ran) * 1e3,
        )
        self._frame += 1
        return out

    def reset(self) -> None:
        """Ends the stream: the next frame is a first frame, of the same shape. What the policy learned stays."""
        self._frame = 0
        self.active = self.stats = None
        self._executed = self._age = self._features = None
        self.policy.reset()
        if self._cut is not None:
            self._cut.reset()
        if self.plan is not None:
            self._state.reset()

    def freeze(self) -> None:
        """Stops learning: from now on decisions depend on the stream and the generator alone."""
        self.policy.frozen = True

    def unfreeze(self) -> None:
        """Learns again."""
        self.policy.frozen = False

    def state_dict(self) -> dict:
        """What was learned, of plain numbers and tensors: not the stream, which starts anew wherever this is loaded."""
        learned = {"policy": self.policy.state_dict(), "standardise": self._standardise.state_dict()}
        return {"name": self.policy_name, **copy.deepcopy(learned)}

    def load_state_dict(self, state: dict) -> None:
        """Takes up what `state_dict` gave, of the same policy, network and task; ends the stream.

        Raises:
            SparseBlockError: the state is of another policy, or none, and everything stays as it was; where it is of
            another network, the next frame raises.
        """
        self._take(state, "the state")

    def _take(self, state: dict, what: str) -> None:
        name = state.get("name") if isinstance(state, dict) else None
        if name != self.policy_name:
            raise SparseBlockError(
                f"BlockCopy: the state is of the policy {name!r} but this one is {self.policy_name!r}; "
                "make BlockCopy with the policy that was saved"
            )
        # Into new ones, which take the place of the old only when they are whole.
        policy, standardise = self._make_policy(), Standardise()
        policy.frozen = self.policy.frozen
        try:
            policy.load_state_dict(copy.deepcopy(state["policy"]))
            standardise.load_state_dict(copy.deepcopy(state["standardise"]))
        except Exception as error:
            # A foreign state makes the loaders raise nearly anything: KeyError, TypeError, RuntimeError, ...
            raise SparseBlockError(
                f"BlockCopy: {what} holds a policy {name!r} that is damaged or something else "
                f"({type(error).__name__}); give what BlockCopy.state_dict gave or BlockCopy.save wrote"
            ) from error
        self.policy, self._standardise = policy, standardise
        self.reset()

    def save(self, path: str | Path) -> None:
        """Writes `state_dict` to a file: it appears under its name only when it is whole.

        Raises:
            SparseBlockError: the file cannot be written.
        """
        policy_file.write(self.state_dict(), Path(path))

    def load(self, path: str | Path) -> None:
        """Reads what `save` wrote.

        Raises:
            SparseBlockError: the file is missing or holds no policy, or as `load_state_dict`.
        """
        self._take(policy_file.read(Path(path)), str(path))

    def _check(self, frame: torch.Tensor) -> None:
        if (
            not isinstance(frame, torch.Tensor)
            or frame.dtype != torch.float32
            or frame.dim() != 4
            or frame.shape[0] != 1
        ):
            what = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, torch.Tensor) else type(frame).__name__
            raise SparseBlockError(f"BlockCopy: frame is {what}; it must be a float32 tensor [1, c, h, w]")
        if self.plan is not None and frame.shape != self._shape:
            raise SparseBlockError(
                f"BlockCopy: frame is {list(frame.shape)} but the stream's first was {list(self._shape)}; "
                "a stream keeps its size; make a BlockCopy for the new one"
            )

    def _make_plan(self, frame: torch.Tensor, view: PolicyView) -> None:
        # A copy, since a frame that was made in inference mode cannot be traced.
        plan = sparseblock.compile(self.model, frame.clone(), block_size=self.block_size)
        self._state = plan.new_state()
        self._limits = None if self.max_age is None else age_limits(plan.grid.rows, plan.grid.cols, self.max_age)
        self._shape, self._view, self.plan = frame.shape, view, plan

    def _reason(self, small: torch.Tensor) -> str:
        cut = self._cut is not None and self._cut(small)
        return FIRST_FRAME if self._frame == 0 else SCENE_CUT if cut else POLICY

    def _decide(self, small: torch.Tensor, reason: str, grid: BlockGrid) -> torch.Tensor:
        """The blocks to execute, bool [rows, cols]."""
        if reason != POLICY:
            return torch.ones(grid.rows, grid.cols, dtype=torch.bool)
        scale = tuple(self._standardise.mean), tuple(self._standardise.deviation)
        return self.policy.decide(Context(small, self._executed, self._features, self.active, self._age, *scale))

    def _due(self, chosen: torch.Tensor) -> torch.Tensor:
        """The blocks that were not chosen but have reached their maximum age, bool [rows, cols]."""
        if self._frame == 0 or self._limits is None or not self.policy.refreshes:
            return torch.zeros_like(chosen)
        return (self._age >= self._limits) & ~chosen

    def _learn(
        self, small: torch.Tensor, out: torch.Tensor, mask: torch.Tensor, aged: torch.Tensor, reason: str
    ) -> None:
        """Shows the policy the first frame, or what came of its decision."""
        before = self._features
        if self.policy.needs_output:
            self._features = self.task.features(self._view.output(out))
        if reason == FIRST_FRAME:
            self._standardise.check(small)
            self.policy.begin(small, self._features)
        if reason == POLICY:
            gain = lambda: self.task.gain(before, self._features, tuple(mask.shape))  # noqa: E731
            self.policy.observe(Outcome(mask, aged, gain))

    def _remember(self, small: torch.Tensor, mask: torch.Tensor) -> None:
        """Brings up to date what the next decision looks back on."""
        first = self._frame == 0
        self._executed = small if first else where_blocks(mask, small, self._executed)
        self._age = torch.zeros(mask.shape, dtype=torch.int64) if first else (self._age + 1).masked_fill(mask, 0)
        self.active = mask
        if not self.policy.frozen or self._standardise.mean is None:
            self._standardise.update(*channel_moments(small))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs the policy in the calling thread.

    Its operators are too small to gain from a second thread, and where the processor is shared with others, waiting for
    one at every operator costs more than the operator: measured in docs/design/0004-policy.md.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_integer(value) and 1 <= value < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
