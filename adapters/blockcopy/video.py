"""BlockCopy: a network on a video, recomputing per frame only the blocks that a policy chooses."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparseblock
from blockcopy import policies, policy_file
from blockcopy.device import Beside, Notice, Recorded, Stopwatch
from blockcopy.files import path_of
from blockcopy.freshness import SceneCut, age_limits
from blockcopy.information_gain import Objects, Seen, task_named
from blockcopy.memory import DeviceMemory, Memory
from blockcopy.numbers import HOST, DeviceNumbers, Number
from blockcopy.policy import Context, Outcome
from blockcopy.trainer import Training
from blockcopy.view import PolicyView, Standardise, where_blocks
from sparseblock import BlockGrid, SparseBlockError
from sparseblock.dense import channel_moments
from sparseblock.plan import DevicePlan, NestedPlan

FIRST_FRAME = "first frame"
SCENE_CUT = "scene cut"
POLICY = "policy"
NOT_FINITE = "not finite"

_READ_FINITE = "give read=, a function that makes finite values of the output"


@dataclass(frozen=True)
class FrameStats:
    """What one frame cost.

    Attributes:
        frame: number of the frame since the start or the last reset.
        reason: "first frame" or "scene cut", where every block runs; otherwise "policy", or, on a device, "not finite",
            where none does.
        active_fraction: share of blocks that ran.
        aged: blocks that ran only because of their age.
        macs: multiply-adds of the network.
        policy_macs: multiply-adds of the policy, its training included.
        policy_ms: checking and shrinking the frame, looking for a scene cut, deciding.
        network_ms: the network. On a device all of the frame, which is one recording; the other two are 0 there.
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
        model: nn.Module in eval mode that takes a frame [1, c, h, w]. One that is not captured whole, such as a
            detector, runs in parts (see `sparseblock.compile`).
        task: "segmentation" (class logits; one channel: foreground or not), "restoration" (a picture) or "detection"
            (objects, on the CPU). Decides the information gain, which the policy "blockcopy" learns from.
        target: share of blocks to execute, in (0, 1], met on average over the frames on which there is a choice.
        block_size: side of a block in pixels.
        policy: name from `blockcopy.policies.names()`.
        seed: of the policy's initial weights and of its sampling. The global generator is neither read nor changed.
        max_age: a block is recomputed at the latest so many frames after it was; blocks fall due at different ages
            between half of it and all of it. None: never. It goes before the target.
        scene_cut: distance between consecutive frames above which everything is recomputed (see SceneCut); None: never.
        train_interval: an update of the policy every so many frames.
        reward, gamma, lr, summary_lr, weight_decay: see Training.
        read: for a model that returns something else than the policy "blockcopy" learns from: a function that makes
            that of the output, such as `lambda out: out["out"]`. It is one tensor [1, k, h', w'], at the frame's size
            or a fraction of it; for detection what torchvision's detectors return (see information_gain.objects_of).
        dtype: what the network's maps are stored in (see `sparseblock.compile`, which raises for a wrong one).

    Attributes:
        plan: the sparseblock Plan or NestedPlan; None before the first frame.

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
        read: Callable[[Any], Any] | None = None,
        dtype: torch.dtype = torch.float32,
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
        if read is not None and not callable(read):
            raise SparseBlockError(f"BlockCopy: read is {type(read).__name__}; it must be a function of the output")
        self.model = model
        self._read = read or (lambda out: out)
        self.task = task_named(task)
        self.target = float(target)
        self.block_size = block_size
        self.dtype = dtype
        self.max_age = max_age
        self.policy_name = policy
        training = Training(reward, train_interval, gamma, lr, summary_lr, weight_decay)
        self._make_policy = partial(policies.make, policy, self.target, seed, self.task, training)
        self.policy = self._make_policy()
        self.plan: sparseblock.Plan | NestedPlan | None = None
        self._frame = 0
        self._stats: FrameStats | None = None
        self._cut = SceneCut(scene_cut) if scene_cut is not None and self.policy.refreshes else None
        self._standardise = Standardise()
        # What lasts from frame to frame: of the policy, and of the stream.
        self._learned: Memory | None = None
        self._stream: Memory | None = None

    # Training needs ordinary tensors, whatever mode the caller is in.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, frame: torch.Tensor) -> Any:
        """Runs the next frame of the stream.

        On a device the first frame makes the host wait, and so does the second of every kind (those that train, those
        that do not), which is recorded; `active` stays there, and reading `stats` waits.

        Args:
            frame: float32 [1, c, h, w], any strides, where the model is; every frame of a stream has the same shape.

        Returns:
            What the model returns for the frame, with every block as it was when it was last executed: a view of the
            network's cache, valid until the next frame. Clone what must outlive it.

        Raises:
            SparseBlockError: the frame is of another shape or type, or holds NaN or infinity. The stream stays as it
            was; where the network itself raises, or somebody interrupts it, the next frame is a first frame. So it is
            where the policy "blockcopy" reads NaN, infinity or values beyond its limit of the output, and it learns
            nothing of this frame. On a device a frame with NaN or infinity runs no block and changes nothing, samples
            of an output with them are as they were before, and the first call that learns of either raises, before it
            runs its own frame.
        """
        self._check(frame)
        if self._frame == 0:
            out = self._first(frame)
        elif self._on_host:
            out = self._next(frame)
        else:
            self._raise_for_bad_frames()
            self.policy.next_frame()
            self._watch.start()
            out = self._recorded(frame, self.policy)
            self._watch.stop()
            self._notice.send(self._bad)
        self._stats = None
        self._frame += 1
        return out

    @property
    def active(self) -> torch.Tensor | None:
        """bool [rows, cols], the blocks that the last frame ran; None before the first frame."""
        return None if self._frame == 0 else self._numbers.where(self._finite, self._active, self._none)

    @property
    def stats(self) -> FrameStats | None:
        """FrameStats of the last frame; None before the first frame. On a device it is read there now."""
        if self._stats is None and self._frame > 0:
            self._stats = self._read_stats()
        return self._stats

    def reset(self) -> None:
        """Ends the stream: the next frame is a first frame, of the same shape. What the policy learned stays."""
        self._frame = 0
        self._stats = None
        self.policy.reset()
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
        self._learned = None
        if self.plan is not None:
            self._recorded.forget()
        self.reset()

    def save(self, path: str | Path) -> None:
        """Writes `state_dict` to a file: it appears under its name only when it is whole.

        Raises:
            SparseBlockError: the file cannot be written, or `path` is that of a directory, a device or a pipe.
        """
        policy_file.write(self.state_dict(), path_of(path, "BlockCopy: path"))

    def load(self, path: str | Path) -> None:
        """Reads what `save` wrote.

        Raises:
            SparseBlockError: the file is missing or holds no policy, or as `load_state_dict`.
        """
        self._take(policy_file.read(path_of(path, "BlockCopy: path")), str(path))

    def _check(self, frame: torch.Tensor) -> None:
        if (
            not isinstance(frame, torch.Tensor)
            or frame.dtype != torch.float32
            or frame.dim() != 4
            or frame.shape[0] != 1
        ):
            what = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, torch.Tensor) else type(frame).__name__
            raise SparseBlockError(f"BlockCopy: frame is {what}; it must be a float32 tensor [1, c, h, w]")
        if frame.layout != torch.strided:
            raise SparseBlockError(
                f"BlockCopy: frame is of the layout {frame.layout}; it must be a dense tensor; give frame.to_dense()"
            )
        if self.plan is not None and frame.shape != self._shape:
            raise SparseBlockError(
                f"BlockCopy: frame is {list(frame.shape)} but the stream's first was {list(self._shape)}; "
                "a stream keeps its size; make a BlockCopy for the new one"
            )
        if self.plan is not None and frame.device != self._all.device:
            raise SparseBlockError(
                f"BlockCopy: frame is on {frame.device} but the stream is on {self._all.device}; move it there"
            )

    def _make_plan(self, frame: torch.Tensor, view: PolicyView) -> None:
        # A copy, since a frame that was made in inference mode cannot be traced.
        plan = sparseblock.compile(self.model, frame.clone(), block_size=self.block_size, dtype=self.dtype)
        if isinstance(plan, DevicePlan) and self.task.needs_host and self.policy.needs_output:
            raise SparseBlockError(
                f"BlockCopy: task is {self.task.name!r} on the {plan.backend} backend, where no frame waits for the "
                f"host, but the policy {self.policy_name!r} reads objects there; use the cpu, or choose another policy"
            )
        device, rows, cols = frame.device, plan.grid.rows, plan.grid.cols
        self._on_host = not isinstance(plan, DevicePlan)
        self._numbers = HOST if self._on_host else DeviceNumbers(device)
        self._memory = Memory if self._on_host else DeviceMemory
        self._recorded, self._watch, self._notice = Recorded(self._next, device), Stopwatch(device), Notice(device, 2)
        self._beside = Beside(device)
        self._limits = None if self.max_age is None else age_limits(rows, cols, self.max_age).to(device)
        self._all = torch.ones(rows, cols, dtype=torch.bool, device=device)
        self._none = torch.zeros_like(self._all)
        self._reads_whole = not self._on_host and any(node.placement == "dense" for node in plan.report().nodes)
        self._state = plan.new_state()
        self._shape, self._view, self.plan = frame.shape, view, plan

    def _first(self, frame: torch.Tensor) -> Any:
        """The first frame of a stream: all blocks. On a device it waits."""
        start = time.perf_counter()
        view = self._view if self.plan else PolicyView(BlockGrid(*frame.shape[-2:], self.block_size))
        with _one_thread():
            small, finite = view.frame(frame)
            if not finite:
                raise self._not_finite(frame)
        decided = time.perf_counter()
        if self.plan is None:
            self._make_plan(frame, view)
        begun = time.perf_counter()
        out = self.plan(frame, None, self._state)
        ran = time.perf_counter()
        with _one_thread():
            self._begin(small, out)
        self._times = decided - start, ran - begun, time.perf_counter() - ran
        return out

    def _begin(self, small: torch.Tensor, out: Any) -> None:
        """Makes what lasts, as it is after the first frame."""
        numbers, cut, standardise = self._numbers, self._cut, self._standardise
        self._features: torch.Tensor | None = None
        self._objects: Objects | None = None
        self._look(out)
        standardise.begin(small, numbers)
        self.policy.begin(small, self._features, numbers)
        if cut is not None:
            cut.begin(numbers)
            cut(small)
        if not self.policy.frozen or standardise.mean is None:
            standardise.update(*channel_moments(small))
        self._executed, self._active = small, self._all
        self._age = torch.zeros_like(self._all, dtype=torch.int64)
        self._aged, self._finite, self._is_cut = self._none, numbers.flag(True), numbers.flag(False)
        self._bad = numbers.listed([0.0, 0.0])  # frames, and outputs: of frames of a device
        if self._learned is None:
            self._learned = self._memory(self.policy.lasting)
            parts = [(self, ["_executed", "_active", "_age"]), (standardise, standardise.lasting)]
            parts += [] if self._features is None else [(self, ["_features"])]
            parts += [] if cut is None else [(cut, cut.lasting)]
            self._stream = self._memory(tuple((part, name) for part, names in parts for name in names))
            self._seen = self._memory(tuple((self, name) for name in ("_aged", "_finite", "_is_cut", "_bad")))
        else:
            for memory in (self._learned, self._stream, self._seen):
                memory.fill()

    def _next(self, frame: torch.Tensor) -> Any:
        """A frame of which the policy chooses the blocks. On a device it decides nothing on the host."""
        numbers = self._numbers
        start = time.perf_counter()
        with _one_thread():
            small, finite = self._view.frame(frame)
            if self._on_host:
                if not finite:
                    raise self._not_finite(frame)
                self.policy.next_frame()
            self._learned.open()
            self._stream.open()
            with self._beside.begin():
                cut = numbers.flag(False) if self._cut is None else self._cut(small)
            chosen = self.policy.decide(self._context(small))
            self._beside.end()
            chosen = numbers.where(cut, self._all, chosen)
            aged = self._due(chosen)
            mask = numbers.where(finite, chosen | aged, self._none)
            with self._beside.begin():
                self.policy.executes(mask)
                self._remember(small, mask)
        decided = time.perf_counter()
        if self._reads_whole:
            frame = torch.where(finite, frame, frame.new_zeros(()))
        with self._put_back():
            out = self.plan(frame, mask[None], self._state)
        ran = time.perf_counter()
        with _one_thread(), self._put_back():
            before, sound = self._look(out)
            self._beside.end()
            gain = lambda: self.task.gain(before, Seen(self._features, self._objects), self._view.grid)  # noqa: E731
            self.policy.observe(Outcome(mask, aged, gain))
            self._learned.close(numbers.unless(finite, cut))
            self._stream.close(finite)
            self._aged, self._finite, self._is_cut = aged, finite, cut
            if not self._on_host:
                self._bad = self._bad + torch.stack([finite, sound]).logical_not()
            self._seen.close(numbers.flag(True))
        self._times = decided - start, ran - decided, time.perf_counter() - ran
        return out

    def _context(self, small: torch.Tensor) -> Context:
        scale = self._standardise.mean, self._standardise.deviation
        return Context(small, self._executed, self._features, self._active, self._age, *scale)

    def _due(self, chosen: torch.Tensor) -> torch.Tensor:
        """The blocks that were not chosen but have reached their maximum age, bool [rows, cols]."""
        if self._limits is None or not self.policy.refreshes:
            return self._none
        return (self._age >= self._limits) > chosen  # and not chosen

    def _look(self, out: Any) -> tuple[Seen, Number]:
        """Sees a frame's output; returns what was seen before it, and whether all of it is within the task's limit.

        On a device what is not is as it was before, so that it gains nothing. On the host, and in a first frame, for
        which it waits, that is an error.
        """
        before, sound = Seen(self._features, self._objects), self._numbers.flag(True)
        if self.policy.needs_output:
            seen = self.task.see(self._read(out), self._view)
            features = seen.features
            if self._on_host or before.features is None:
                if not seen.within(self.task.limit):
                    raise self._not_readable()
            else:
                good = features.abs() <= self.task.limit  # NaN is not
                features, sound = torch.where(good, features, before.features), good.all()
            self._features, self._objects = features, seen.objects
        return before, sound

    @contextmanager
    def _put_back(self) -> Iterator[None]:
        """What breaks off in the network or after it, on the host: nothing is learned of the frame, and the stream
        ends, since some layers have taken the frame up, others not, or the cache holds an output of no use."""
        try:
            yield
        except BaseException:
            if self._on_host:
                self._learned.close(False)
                self._stream.close(False)
                self.reset()
            raise

    def _remember(self, small: torch.Tensor, mask: torch.Tensor) -> None:
        """Brings up to date what the next decision looks back on."""
        self._executed = where_blocks(mask, small, self._executed)
        self._age = (self._age + 1).masked_fill(mask, 0)
        self._active = mask
        if not self.policy.frozen:
            self._standardise.update(*channel_moments(small))

    def _read_stats(self) -> FrameStats:
        active, finite = self.active.cpu(), bool(self._finite)
        forced = SCENE_CUT if self._is_cut else POLICY
        times = self._times if self._on_host or self._frame == 1 else (0.0, self._watch.read() / 1e3, 0.0)
        policy_ms, network_ms, train_ms = (1e3 * seconds for seconds in times)
        return FrameStats(
            frame=self._frame - 1,
            reason=FIRST_FRAME if self._frame == 1 else forced if finite else NOT_FINITE,
            active_fraction=active.float().mean().item(),
            aged=int((self._aged.cpu() & active).sum()),
            macs=self.plan.dense_macs + int(self.plan.block_macs[active].sum()),
            policy_macs=self.policy.macs if self._frame > 1 else 0,
            policy_ms=policy_ms,
            network_ms=network_ms,
            train_ms=train_ms,
        )

    def _not_finite(self, frame: torch.Tensor) -> SparseBlockError:
        if frame.isfinite().all():
            return SparseBlockError(
                f"BlockCopy: frame {self._frame} holds values up to {frame.abs().max().item():g}, whose sums overflow "
                "float32; drop the frame or scale it"
            )
        return SparseBlockError(
            f"BlockCopy: frame {self._frame} holds NaN or infinity; the cache would keep it; "
            "drop the frame or repair it"
        )

    def _not_readable(self) -> SparseBlockError:
        return SparseBlockError(
            f"BlockCopy: of the network's output on frame {self._frame} the policy reads {self._beyond}, so that the "
            f"information gain of blocks is no number; the next frame runs all blocks; {_READ_FINITE}"
        )

    @property
    def _beyond(self) -> str:
        return f"NaN, infinity or values beyond {self.task.limit:g}"

    def _raise_for_bad_frames(self) -> None:
        frames, outputs = self._notice.read()
        if not frames and not outputs:
            return
        self._bad.zero_()
        self._notice.send(self._bad)
        told, before = [], f"of the frames before frame {self._frame}, "
        if frames:
            told.append(
                f"{before}{frames} held NaN or infinity, or values whose sums overflow float32, and ran no block; "
                "drop such frames or repair them"
            )
        if outputs:
            told.append(
                f"{before}{outputs} had an output of which the policy reads {self._beyond}, and does not learn from "
                f"them; the next frame runs all blocks; {_READ_FINITE}"
            )
            self.reset()
        raise SparseBlockError(f"BlockCopy: {'; '.join(told)}")


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
