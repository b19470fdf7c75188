"""BlockCopy: a network on a video, recomputing per frame only the blocks that a policy chooses."""

from __future__ import annotations

import copy
import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import sparseblock
from blockcopy import policies
from blockcopy.freshness import SceneCut, age_limits
from blockcopy.information_gain import task_named
from blockcopy.policy import Context, Outcome
from blockcopy.trainer import Training
from blockcopy.view import PIXELS, PolicyView, Standardise, enlarge
from sparseblock import BlockGrid, SparseBlockError


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
        policy_ms: shrinking the frame, looking for a scene cut and deciding.
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
        task: "segmentation" (the output is class logits; one channel: foreground or not) or "restoration" (the output is a
            picture). Decides the information gain.
        target: share of blocks to execute, in (0, 1], met on average over the frames on which there is a choice.
        block_size: side of a block in pixels.
        policy: name from `blockcopy.policies.names()`.
        seed: of the policy's initial weights and of its sampling. The global generator is neither read nor changed.
        max_age: a block is recomputed at the latest so many frames after it was; blocks fall due at different ages between
            half of it and all of it. None: never. It goes before the target.
        scene_cut: distance between consecutive frames above which everything is recomputed (see SceneCut); None: never.
        train_interval: an update of the policy every so many frames.
        reward, gamma, lr, summary_lr, weight_decay: see Training.

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
        scene_cut: float | None = 0.5,
        train_interval: int = 4,
        reward: str = Training.reward,
        gamma: float = Training.gamma,
        lr: float = Training.lr,
        summary_lr: float = Training.summary_lr,
        weight_decay: float = Training.weight_decay,
    ) -> None:
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target <= 1:
            raise SparseBlockError(f"BlockCopy: target is {target!r}; it must be a share of blocks in (0, 1]")
        if not isinstance(block_size, int) or block_size < 1:
            raise SparseBlockError(f"BlockCopy: block_size is {block_size!r}; it must be a positive integer (pixels)")
        if max_age is not None and (not isinstance(max_age, int) or max_age < 1):
            raise SparseBlockError(f"BlockCopy: max_age is {max_age!r}; it must be a positive integer (frames) or None")
        if scene_cut is not None and not 0 < scene_cut:
            raise SparseBlockError(f"BlockCopy: scene_cut is {scene_cut!r}; it must be positive, or None for no detection")
        self.model = model
        self.task = task_named(task)
        self.target = float(target)
        self.block_size = block_size
        self.max_age = max_age
        training = Training(reward, train_interval, gamma, lr, summary_lr, weight_decay)
        self.policy_name = policy
        self.policy = policies.make(policy, self.target, seed, self.task, training)
        self.plan: sparseblock.Plan | None = None
        self.active: torch.Tensor | None = None
        self.stats: FrameStats | None = None
        self._cut = SceneCut(scene_cut) if scene_cut is not None and self.policy.refreshes else None
        self._normal = Standardise()
        self._features: torch.Tensor | None = None
        self._frame = 0

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
            SparseBlockError: the frame is of another shape or type, or holds NaN or infinity. The stream stays as it was.
        """
        start = time.perf_counter()
        small = self._shrink(frame)
        cut = self._cut is not None and self._cut(small)
        reason = "first frame" if self._frame == 0 else "scene cut" if cut else "policy"
        aged = None
        if reason == "policy":
            context = Context(
                self._normal(small), self._normal(self._executed), self._features, self.active, self._age
            )
            chosen = self.policy.decide(context)
            aged = self._due() & ~chosen
            mask = chosen | aged
        else:
            mask = torch.ones(self.plan.grid.rows, self.plan.grid.cols, dtype=torch.bool)
        decided = time.perf_counter()
        out = self.plan(frame, mask[None], self._state)
        ran = time.perf_counter()
        self._remember(small, mask)
        if self.policy.needs_output:
            previous = self._features
            self._features = self.task.features(self._view.output(out))
        if reason == "policy":
            grid = tuple(mask.shape)
            self.policy.observe(Outcome(mask, aged, lambda: self.task.gain(previous, self._features, grid)))
        self.stats = FrameStats(
            frame=self._frame,
            reason=reason,
            active_fraction=mask.float().mean().item(),
            aged=0 if aged is None else int(aged.sum()),
            macs=self.plan.dense_macs + int(self.plan.block_macs[mask].sum()),
            policy_macs=self.policy.macs if reason == "policy" else 0,
            policy_ms=(decided - start) * 1e3,
            network_ms=(ran - decided) * 1e3,
            train_ms=(time.perf_counter() - ran) * 1e3,
        )
        self._frame += 1
        return out

    def reset(self) -> None:
        """Ends the stream: the next frame is a first frame, of the same shape. What the policy learned stays."""
        self._frame = 0
        self.active = None
        self.stats = None
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
        return {"policy_name": self.policy_name, "policy": self.policy.state_dict(), "normal": self._normal.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Takes up what `state_dict` gave, of the same policy, network and task; ends the stream.

        Raises:
            SparseBlockError: the state is of another policy, or none; where it is of another network, the next frame raises.
        """
        saved = state.get("policy_name") if isinstance(state, dict) else None
        if saved != self.policy_name:
            raise SparseBlockError(
                f"BlockCopy: the state is of the policy {saved!r} but this one is {self.policy_name!r}; make BlockCopy with the "
                "policy that was saved"
            )
        state = copy.deepcopy(state)
        self.policy.load_state_dict(state["policy"])
        self._normal.load_state_dict(state["normal"])
        self.reset()

    def save(self, path: str | Path) -> None:
        """Writes `state_dict` to a file: it appears under its name only when it is whole."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            torch.save(self.state_dict(), partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            raise SparseBlockError(f"BlockCopy: the policy cannot be written to {path}: {error}; choose another path") from error

    def load(self, path: str | Path) -> None:
        """Reads what `save` wrote.

        Raises:
            SparseBlockError: the file is missing or holds no policy, or as `load_state_dict`.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SparseBlockError(
                f"BlockCopy: no policy can be read from {path}: {reason}; give a file that BlockCopy.save wrote"
            ) from error
        self.load_state_dict(state)

    def _shrink(self, frame: torch.Tensor) -> torch.Tensor:
        """The frame as the policy sees it; the plan is made for the first one."""
        if not isinstance(frame, torch.Tensor) or frame.dtype != torch.float32 or frame.dim() != 4 or frame.shape[0] != 1:
            what = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, torch.Tensor) else type(frame).__name__
            raise SparseBlockError(f"BlockCopy: frame is {what}; it must be a float32 tensor [1, c, h, w]")
        if self.plan is not None and frame.shape != self._shape:
            raise SparseBlockError(
                f"BlockCopy: frame is {list(frame.shape)} but the stream's first was {list(self._shape)}; a stream keeps its size; "
                "make a BlockCopy for the new one"
            )
        view = self._view if self.plan is not None else PolicyView(BlockGrid(*frame.shape[-2:], self.block_size))
        small = view.frame(frame)
        if not bool(small.isfinite().all()):
            raise SparseBlockError(
                f"BlockCopy: frame {self._frame} holds NaN or infinity; the cache would keep it; drop the frame or repair it"
            )
        if self.plan is None:
            plan = sparseblock.compile(self.model, frame, block_size=self.block_size)
            self._state = plan.new_state()
            self._shape, self._view, self.plan = frame.shape, view, plan
            self._limits = None if self.max_age is None else age_limits(plan.grid.rows, plan.grid.cols, self.max_age)
        return small

    def _due(self) -> torch.Tensor:
        """The blocks that have reached their maximum age, bool [rows, cols]."""
        if self._limits is None or not self.policy.refreshes:
            return torch.zeros_like(self.active)
        return self._age >= self._limits

    def _remember(self, small: torch.Tensor, mask: torch.Tensor) -> None:
        """Brings up to date what the next decision looks back on."""
        if self._frame == 0:
            self._executed, self._age = small, torch.zeros(mask.shape, dtype=torch.int64)
        self._executed = torch.where(enlarge(mask, PIXELS), small, self._executed)
        self._age = (self._age + 1).masked_fill(mask, 0)
        self.active = mask
        if not self.policy.frozen:
            self._normal.update(small)
