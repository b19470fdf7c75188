"""ResizablePlan: frames of any size, each size with a plan of its own; where the size changes, streams begin anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.blocks import BlockSet
from sparseblock.cache import FeatureCache
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.gates import Gate
from sparseblock.plan.nested import NestedPlan, NestedState, is_image_list
from sparseblock.plan.plan import Plan

Sizes = tuple[tuple[int, ...], ...]


class ResizablePlan:
    """A network on frames of any size. Made by `sparseblock.compile(..., on_resize="reset")`; called as a `Plan` is.

    It keeps a plan for each size that it has seen, packed weights and all, and a copy of the model to make the next one
    from, which takes as long as compiling does. Several threads may call it, with different states.
    """

    def __init__(self, make: Callable[[Any], Plan | NestedPlan], example_frame: Any) -> None:
        self._make = make
        self._example = example_frame
        self._plans: dict[Sizes, Plan | NestedPlan] = {}
        self._lock = threading.Lock()
        self.at(example_frame)

    def at(self, frame: Any) -> Plan | NestedPlan:
        """The plan for frames of the size of `frame`, made now if there is none: its grid, report and MACs are there.

        Raises:
            SparseBlockError: as `sparseblock.compile` for an example like this frame.
        """
        sizes = _sizes(frame)
        if sizes not in self._plans:  # looked up before the lock: streams of known sizes wait for no other's new one
            with self._lock:
                if sizes not in self._plans:
                    self._plans[sizes] = self._make(frame)
        return self._plans[sizes]

    def report(self) -> Any:
        """What the plan for frames of the example's size reports; `at(frame).report()` is that of another size."""
        return self.at(self._example).report()

    def new_state(self, streams: int = 1, frame: Any = None) -> ResizableState:
        """Planes for `streams` videos that have seen nothing yet, for frames of the size of `frame`, or that of the
        example; raises as `Plan.new_state` and `at`.
        """
        plan = self.at(self._example if frame is None else frame)
        return ResizableState(plan, plan.new_state(streams))

    def __call__(
        self,
        frame: Any,
        blocks: BlockSet | torch.Tensor | None,
        state: ResizableState,
        gates: Mapping[str, Gate | BlockSet] | None = None,
    ) -> Any:
        """Runs one frame of every stream, as the plan for its size does.

        A frame of another size than the last is the first one of all its streams: all of its blocks run, whatever
        `blocks` and `gates` say, which may still be over the old grid. `state.grid` then is the new one.

        Raises:
            SparseBlockError: as the plan's call, and as `at`; the state is then what it was.
        """
        if not isinstance(state, ResizableState) or state.plan not in self._plans.values():
            raise SparseBlockError("plan: state is not of this plan; make it with plan.new_state()")
        plan = self.at(frame)
        if plan is state.plan:
            return plan(frame, blocks, state.cache, **({"gates": gates} if gates else {}))
        cache = plan.new_state(state.streams)
        out = plan(frame, None, cache)
        state.plan, state.cache = plan, cache
        return out

    def __getstate__(self) -> None:
        raise SparseBlockError(
            "plan: with on_resize it holds a copy of the model to make further plans from, and cannot be pickled or "
            "copied; pickle plan.at(frame), which holds no weights, or compile again where it is needed"
        )


class ResizableState:
    """What a `ResizablePlan` remembers of its streams, at the size of their last frame.

    Attributes:
        plan: the plan of that size.
        cache: its state; `FeatureCache` or `NestedState` says what it can do.
    """

    def __init__(self, plan: Plan | NestedPlan, cache: FeatureCache | NestedState) -> None:
        self.plan = plan
        self.cache = cache

    @property
    def grid(self) -> BlockGrid:
        """The blocks of a frame of the size of the last."""
        return self.plan.grid

    @property
    def streams(self) -> int:
        return self.cache.streams

    @property
    def frames(self) -> list[int]:
        """Frames seen by each stream since its start, its reset or the last change of size."""
        return self.cache.frames

    @property
    def nbytes(self) -> int:
        """Bytes of all planes, borders included."""
        return self.cache.nbytes

    def reset(self, stream: int | None = None) -> None:
        """As `FeatureCache.reset`."""
        self.cache.reset(stream)

    def state_dict(self) -> dict[str, Any]:
        """As `FeatureCache.state_dict`."""
        return self.cache.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `FeatureCache.load_state_dict`; `state` is of frames of the size that this one is at."""
        self.cache.load_state_dict(state)

    def fork(self) -> ResizableState:
        """As `FeatureCache.fork`."""
        return ResizableState(self.plan, self.cache.fork())

    def to(self, device: torch.device | str) -> ResizableState:
        """As `FeatureCache.to`."""
        self.cache.to(device)
        return self


def check_one_size(what: str, plan: Any) -> None:
    """Raises SparseBlockError where `plan` stands for plans of many sizes."""
    if isinstance(plan, ResizablePlan):
        raise SparseBlockError(
            f"{what}: plan is a ResizablePlan, which has a plan for each frame size; give it the one of plan.at(frame)"
        )


def _sizes(frame: Any) -> Sizes:
    """What of a frame needs a plan of its own: channels, height and width of every map, not the number of streams."""
    if is_image_list(frame):
        return tuple({tuple(image.shape): None for image in frame})
    return tuple(tuple(leaf.shape[1:]) for leaf in pytree.tree_leaves(frame) if isinstance(leaf, torch.Tensor))
