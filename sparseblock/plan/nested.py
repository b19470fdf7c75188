"""NestedPlan: a model that is not captured whole. Its convolutional parts are plans, what is between stays Python."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sparseblock.blocks import BlockSet
from sparseblock.cache import FeatureCache, check_state, check_tensor
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan import report_html
from sparseblock.plan.active import check_blocks, check_first_frames
from sparseblock.plan.capture import check_model
from sparseblock.plan.carry import Carry
from sparseblock.plan.parts import in_transform, stand_in
from sparseblock.plan.plan import Plan
from sparseblock.plan.report import Report


@dataclass(eq=False)
class NestedState:
    """What a nested plan remembers of `streams` videos: a cache for every call of a part.

    Attributes:
        caches: by the name of the call.
        frames: frames seen by each stream since its start or reset.
        pending: bool [n, rows, cols] over the parts' grid, for every call: blocks that were active in frames in which
            the model did not make this call; they run when it next does.
        written: by the name of a call, whether the model writes to what it returned, and so gets a copy. A call's first
            frame, of which nothing is known yet, returns one too.
    """

    caches: dict[str, FeatureCache]
    streams: int
    frames: list[int]
    pending: dict[str, torch.Tensor]
    written: dict[str, bool] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes, borders included."""
        return sum(cache.nbytes for cache in self.caches.values())

    def reset(self, stream: int | None = None) -> None:
        """Forgets what one stream, or where `stream` is None every stream, has seen; its next frame is its first.

        Raises:
            SparseBlockError: there is no such stream.
        """
        for cache in self.caches.values():
            cache.reset(stream)
        chosen = slice(None) if stream is None else slice(stream, stream + 1)
        self.frames[chosen] = [0] * len(self.frames[chosen])

    def state_dict(self) -> dict[str, Any]:
        """What the streams have left behind, as plain data and tensors of its own: torch.save takes it."""
        return {
            "frames": list(self.frames),
            "caches": {name: cache.state_dict() for name, cache in self.caches.items()},
            "pending": {name: mask.clone() for name, mask in self.pending.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the state of the same plan was whose `state_dict` this is.

        Raises:
            SparseBlockError: it is no such dict, or of another number of streams or other parts.
        """
        check_state("NestedState", state, ("frames", "caches", "pending"), self.streams)
        for key, own in (("caches", self.caches), ("pending", self.pending)):
            if state[key].keys() != own.keys():
                raise SparseBlockError(
                    f"NestedState: {key} are of {', '.join(state[key])}, but here of {', '.join(own)}; "
                    "load what a state of the same plan gave"
                )
        for name, mask in state["pending"].items():
            check_tensor(f"NestedState: pending of {name!r}", mask, self.pending[name])
        forks = {name: cache.fork() for name, cache in self.caches.items()}
        for name, cache in forks.items():
            cache.load_state_dict(state["caches"][name])
        self.caches.update(forks)
        self.pending.update({name: mask.clone() for name, mask in state["pending"].items()})
        self.frames[:] = state["frames"]

    def to(self, device: torch.device | str) -> NestedState:
        """This state, where it is on `device` already; raises as `FeatureCache.to`."""
        for cache in self.caches.values():
            cache.to(device)
        return self

    def fork(self) -> NestedState:
        """A state of its own that goes on from here, such as to look ahead."""
        caches = {name: cache.fork() for name, cache in self.caches.items()}
        pending = {name: mask.clone() for name, mask in self.pending.items()}
        return NestedState(caches, self.streams, list(self.frames), pending, written=dict(self.written))


class NestedPlan:
    """A model whose parts are plans. Made by `sparseblock.compile`; it is called, and has a state, as a `Plan` does.

    Attributes:
        grid: the blocks of a frame.
        parts: the plan of every call of a part, by its name: the part's path, and "#2" for its second call in a frame.
        macs: multiply-accumulates of the dense model on the example.
        dense_macs: the part of them that runs whatever is active, in the parts and in Python.
        block_macs: int64 [rows, cols]: those of each block. Where the model resizes the frame, the blocks behind that
            are shared out among the blocks that reach them.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, Sequence[Plan]],
        grid: BlockGrid,
        carry: Carry,
        macs: int,
        left: str,
    ) -> None:
        self.grid = grid
        self.parts = {_name(part, number): plan for part, plans in parts.items() for number, plan in enumerate(plans)}
        self._carry = carry
        self._left = left
        self._model: nn.Module | None = _with_parts(model, parts)
        inside = sum(plan.macs for plan in self.parts.values())
        self.block_macs = carry.share_out(sum(plan.block_macs for plan in self.parts.values()))
        self.macs = max(macs, inside)
        self.dense_macs = self.macs - int(self.block_macs.sum())

    def new_state(self, streams: int = 1) -> NestedState:
        """Planes for `streams` videos that have seen nothing yet; raises as `Plan.new_state`."""
        caches = {name: plan.new_state(streams) for name, plan in self.parts.items()}
        grid = self._carry.grid
        pending = {name: torch.zeros(streams, grid.rows, grid.cols, dtype=torch.bool) for name in self.parts}
        return NestedState(caches, streams, [0] * streams, pending)

    @torch.no_grad()
    def __call__(self, frame: Any, blocks: BlockSet | torch.Tensor | None, state: NestedState) -> Any:
        """Runs one frame of every stream and returns what the model returns.

        Args:
            frame: as the model takes it: float32 [n, c, h, w], or a list of n images [c, h, w], n being the streams.
            blocks: what to recompute: a BlockSet or a bool mask [n, rows, cols] over `grid`, or None for everything. A
                stream's first frame takes all of its blocks.
            state: from `new_state`; updated in place.

        Raises:
            SparseBlockError: frame, blocks or state do not fit this plan, a stream's first frame is not whole, the
                model calls a part otherwise than when it was compiled, or changes what a part returned.
        """
        if self._model is None:
            raise SparseBlockError(
                "plan: it was unpickled and has no weights yet; run the plan that plan.with_weights(model) returns"
            )
        if not isinstance(state, NestedState) or state.caches.keys() != self.parts.keys():
            raise SparseBlockError("plan: state is not of this plan; make it with plan.new_state()")
        self._check_frame(frame, state)
        run = _Run(self, state, self._carry.mask(block_mask(blocks, self.grid, state.frames)))
        token = _RUN.set(run)
        try:
            out = self._model(frame)
        finally:
            _RUN.reset(token)
            run.finish()
        run.learn()
        state.frames[:] = [seen + 1 for seen in state.frames]
        return out

    def to(self, device: torch.device | str) -> NestedPlan:
        """This plan, where it runs on `device` already; raises as `Plan.to`."""
        for plan in self.parts.values():
            plan.to(device)
        return self

    # Frozen, so a copy is the plan itself.
    def __copy__(self) -> NestedPlan:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> NestedPlan:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: the parts as they pickle, nothing of the model; see `with_weights`."""
        return {**self.__dict__, "_model": None}

    def with_weights(self, model: nn.Module) -> NestedPlan:
        """The same plan with the weights of `model`, and its Python between the parts; as `Plan.with_weights`."""
        check_model(model)
        paths = {name: name.partition("#")[0] for name in self.parts}
        plan = object.__new__(NestedPlan)
        plan.__dict__.update(self.__dict__)
        try:
            plan.parts = {
                name: part.with_weights(model.get_submodule(paths[name])) for name, part in self.parts.items()
            }
        except AttributeError as error:
            raise SparseBlockError(
                f"plan: {type(model).__name__} lacks a part ({error}); give it the model that it was compiled from, "
                "with any weights"
            ) from None
        plan._model = _with_parts(model, set(paths.values()))
        return plan

    def report(self) -> NestedReport:
        """What runs sparse in every part, and what stays Python."""
        reports = {name: plan.report() for name, plan in self.parts.items()}
        grid = (self.grid.rows, self.grid.cols, self.grid.block_size)
        return NestedReport(grid, reports, self.macs, self.dense_macs, self._left)

    def _check_frame(self, frame: Any, state: NestedState) -> None:
        count, size = frame_shape(frame)
        if count != state.streams or size != (self.grid.height, self.grid.width):
            raise SparseBlockError(
                f"plan: frame is {count} of {list(size)}; this plan and state take {state.streams} of "
                f"{[self.grid.height, self.grid.width]}: compile a plan for each frame size, or one with "
                'on_resize="reset"; make a state with as many streams as a frame has'
            )


@dataclass(frozen=True)
class NestedReport:
    """The reports of the parts, and totals; `str()` shows them, `to_json` and `to_html` hold the same.

    Attributes:
        grid: rows and columns of blocks, and pixels of a block of the frame.
        parts: by the name of the call.
        macs, dense_macs: of one frame, and the part of it that runs whatever is active.
        left: why the model did not capture as a whole.
    """

    grid: tuple[int, int, int]
    parts: Mapping[str, Report]
    macs: int
    dense_macs: int
    left: str

    @property
    def coverage(self) -> float:
        """Share of the MACs that active blocks decide about."""
        return 1.0 - self.dense_macs / self.macs if self.macs else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        parts = {name: report.to_dict() for name, report in self.parts.items()}
        return {**vars(self), "parts": parts, "coverage": self.coverage}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_html(self) -> str:
        """One HTML page, which needs nothing else: totals, and of every part its totals, table and graph."""
        return report_html.page(self.parts, self.totals())

    def totals(self) -> list[str]:
        """What holds for the whole plan, in lines."""
        inside = sum(report.macs for report in self.parts.values())
        rows, cols, block = self.grid
        return [
            f"{rows} x {cols} blocks of {block} px; {len(self.parts)} parts, {', '.join(self.parts)}; "
            "the rest stays Python",
            f"{self.macs / 1e9:.3f} GMAC a frame, {100 * self.coverage:.1f} % of them sparse, "
            f"{100 * (self.macs - inside) / max(self.macs, 1):.1f} % in Python",
            *([f"not captured whole: {self.left}"] if self.left else []),
        ]

    def __str__(self) -> str:
        return "\n".join([*(f"{name}\n{report}\n" for name, report in self.parts.items()), *self.totals()])


class _Run:
    """One frame on its way through a nested plan."""

    def __init__(self, plan: NestedPlan, state: NestedState, mask: torch.Tensor) -> None:
        self.plan, self.state, self.mask = plan, state, mask
        self.calls: Counter[str] = Counter()
        self.done: set[str] = set()
        self.copies: dict[str, list[tuple[torch.Tensor, int]]] = {}

    def call(self, part: str, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        name = _name(part, self.calls[part])
        self.calls[part] += 1
        plan, cache = self.plan.parts.get(name), self.state.caches.get(name)
        if plan is None:
            raise SparseBlockError(
                f"plan: {part} is called {self.calls[part]} times in this frame, more often than when it was compiled; "
                "compile with parts= that are called as often in every frame"
            )
        if cache.overwritten():
            raise SparseBlockError(
                f"plan: the model has changed what {name} returned in place, which the next frame would have kept; "
                "leave this part out of parts=, or have the model work on a copy"
            )
        mask = self.mask | self.state.pending[name]
        try:
            out = plan.call(args, kwargs, None if bool(mask.all()) else mask, cache)
        except SparseBlockError as error:
            raise SparseBlockError(f"{name}: {error}") from error
        self.state.pending[name].zero_()
        self.done.add(name)
        return self._copied(name, out) if self.state.written.get(name, True) else out

    def _copied(self, name: str, out: Any) -> Any:
        with torch.inference_mode(False):  # whose tensors count no writes
            out = pytree.tree_map_only(torch.Tensor, torch.clone, out)
        copies = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.copies[name] = [(copy, copy._version) for copy in copies]
        return out

    def learn(self) -> None:
        """Which calls the model writes to the results of, after a frame."""
        for name, copies in self.copies.items():
            changed = any(copy._version != version for copy, version in copies)
            self.state.written[name] = changed or self.state.written.get(name, False)

    def finish(self) -> None:
        """Blocks of this frame that a call which was not made would have run are kept for when it is."""
        for name, pending in self.state.pending.items():
            if name not in self.done:
                pending |= self.mask


_RUN: ContextVar[_Run] = ContextVar("the frame that runs in this thread")


def block_mask(blocks: Any, grid: BlockGrid, frames: Sequence[int]) -> torch.Tensor:
    """bool [n, rows, cols] of `blocks`, a BlockSet, a mask or None for all; `frames` counts what each stream has seen.

    Raises:
        SparseBlockError: they do not fit the grid, or a stream's first frame is not whole.
    """
    if blocks is None:
        return torch.ones(len(frames), grid.rows, grid.cols, dtype=torch.bool)
    check_blocks(blocks, grid, len(frames))
    mask = (blocks.to_mask() if isinstance(blocks, BlockSet) else blocks).cpu()
    check_first_frames(mask, frames)
    return mask


def frame_shape(frame: Any) -> tuple[int, tuple[int, int]]:
    """Number of images in a frame, [n, c, h, w] or a list of n images [c, h, w], and their height and width.

    Raises:
        SparseBlockError: it is neither, or the images differ in size.
    """
    if isinstance(frame, torch.Tensor) and frame.dim() == 4:
        return frame.shape[0], tuple(frame.shape[2:])
    if is_image_list(frame) and len({image.shape for image in frame}) == 1:
        return len(frame), tuple(frame[0].shape[1:])
    shapes = [list(leaf.shape) for leaf in pytree.tree_leaves(frame) if isinstance(leaf, torch.Tensor)]
    raise SparseBlockError(
        f"plan: frame is a {type(frame).__name__} of {shapes}; it must be a tensor [n, c, h, w] or a list of images "
        "[c, h, w] of one size"
    )


def is_image_list(frame: Any) -> bool:
    """Whether it is a list of images [c, h, w], as torchvision's detectors take."""
    return (
        isinstance(frame, (list, tuple))
        and len(frame) > 0
        and all(isinstance(image, torch.Tensor) and image.dim() == 3 for image in frame)
    )


def _with_parts(model: nn.Module, parts: Iterable[str]) -> nn.Module:
    """A stand-in for `model` in which calls of `parts` are those of the plan that runs."""
    return stand_in(model, {model.get_submodule(part): _planned(part) for part in parts})


def _planned(part: str) -> Callable[[Callable], Callable]:
    def wrap(forward: Callable) -> Callable:
        def planned(*args: Any, **kwargs: Any) -> Any:
            if in_transform():
                return forward(*args, **kwargs)
            return _RUN.get().call(part, args, kwargs)

        return planned

    return wrap


def _name(part: str, number: int) -> str:
    return part if number == 0 else f"{part}#{number + 1}"
