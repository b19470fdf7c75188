"""`sparseblock.calibrate`: tolerances by layer for a bounded plan, from frames and an error that is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.errors import SparseBlockError
from sparseblock.plan.exact import FRAME, ExactPlan
from sparseblock.plan.resize import check_one_size
from sparseblock.plan.verify import apart, check_frames, peak

COARSEST, FINEST = 0, -20  # powers of two that are tried as a share, the largest first
REFINED = 3  # bisections between the largest share that fits and the next one


@dataclass(frozen=True)
class Trial:
    """A run of all frames with one tolerance for each layer.

    Attributes:
        share: of each layer's standard deviation that its tolerance is; None for the exact plan.
        error: largest over the frames.
        macs: share of the dense network's multiply-accumulates, over all frames but the first, which runs whole.
    """

    share: float | None
    error: float
    macs: float


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found; `str()` is a table.

    Attributes:
        plan: the bounded plan, with these tolerances.
        tolerance: by layer, as `sparseblock.compile` takes it.
        chosen: the trial of the plan.
        trials: all of them, the exact plan first and then by share.
        max_error: what was allowed.
    """

    plan: ExactPlan
    tolerance: Mapping[str, float]
    chosen: Trial
    trials: tuple[Trial, ...]
    max_error: float

    def __str__(self) -> str:
        lines = ["tolerance / deviation     error     MACs"]
        for trial in self.trials:
            share = "exact" if trial.share is None else f"{trial.share:.3g}"
            mark = "  <- chosen" if trial is self.chosen else ""
            lines.append(f"{share:>21}  {trial.error:8.2e}  {100 * trial.macs:5.1f} %{mark}")
        return "\n".join([*lines, "", f"an error of at most {self.max_error:g} was allowed"])


def largest_difference(out: Any, exact: Any) -> float:
    """The largest distance of any element of the float tensors in two results; infinite where one alone is NaN."""
    pairs = [
        (a, b)
        for a, b in zip(pytree.tree_leaves(out), pytree.tree_leaves(exact), strict=True)
        if isinstance(a, torch.Tensor) and a.is_floating_point()
    ]
    if not pairs:
        raise SparseBlockError(
            "calibrate: the network returns no float tensor to measure an error on; give a function of two results as "
            "error="
        )
    return max(peak(apart(a.double(), b.double())) for a, b in pairs)


@torch.no_grad()
def calibrate(
    plan: ExactPlan,
    frames: Iterable[torch.Tensor],
    max_error: float,
    error: Callable[[Any, Any], float] = largest_difference,
) -> Calibration:
    """The largest tolerances, as one share of every layer's deviation, whose outputs stay within an error on `frames`.

    The tolerance of a layer, and of the frame, is the share times the standard deviation of its values in the exact
    plan; of a layer of several values, of the smallest. Shares are powers of two, and a few between the largest that
    fits and the next. That the error stays as small on other frames is not proved: give frames that stand for yours.

    Args:
        plan: from `sparseblock.compile(..., mode="exact")`; whatever its own tolerances are.
        frames: float32 [n, c, h, w] each, in order; n streams. At least two.
        max_error: the largest error that is allowed at any frame.
        error: of a result of the bounded plan, against the exact plan's on the same frame. It must not keep them.

    Raises:
        SparseBlockError: the plan is not exact or has no weights, there are not two frames, one does not fit, max_error
            is no number of at least 0, or `error` gives none.

    Example:
        >>> found = sparseblock.calibrate(plan, frames, max_error=0.05)
        >>> print(found)
        >>> plan = found.plan
    """
    check_one_size("calibrate", plan)
    if not isinstance(plan, ExactPlan):
        raise SparseBlockError(
            f'calibrate: plan is a {type(plan).__name__}; tolerances are of exact plans: compile it with mode="exact"'
        )
    if plan.residual_gates:
        raise SparseBlockError(
            "calibrate: plan has residual gates, from whose error that of tolerances cannot be told apart; compile it "
            "without gates"
        )
    if isinstance(max_error, bool) or not isinstance(max_error, (int, float)) or not 0 <= max_error < math.inf:
        raise SparseBlockError(f"calibrate: max_error is {max_error!r}; it must be a number of at least 0")
    if not callable(error):
        raise SparseBlockError(f"calibrate: error is {error!r}; it must be a function of two results")
    check_frames("calibrate", frames)
    frames = list(frames)
    if len(frames) < 2:
        raise SparseBlockError(f"calibrate: frames are {len(frames)}; it takes two at least, of which one can change")
    exact = plan.with_tolerance(None)
    expected: list[Any] = []
    deviations = _Deviations(exact)

    def keep(out: Any, state: Any) -> float:
        expected.append(pytree.tree_map_only(torch.Tensor, torch.clone, out))
        deviations.add(state)
        return 0.0

    trials = {None: _run(exact, frames, None, keep)}
    layers = deviations.by_layer()

    def trial(share: float) -> bool:
        """Whether the error is allowed."""
        bounded = plan.with_tolerance({name: share * deviation for name, deviation in layers.items()})
        right = iter(expected)
        trials[share] = _run(bounded, frames, share, lambda out, state: _as_number(error(out, next(right))))
        return trials[share].error <= max_error

    fits = next((2.0**power for power in range(COARSEST, FINEST - 1, -1) if trial(2.0**power)), 0.0)
    if fits == 0.0:
        trial(0.0)  # holds back what has the same bits, which is exact
    elif fits < 2.0**COARSEST:
        fails = 2 * fits
        for _ in range(REFINED):
            middle = math.sqrt(fits * fails)
            fits, fails = (middle, fails) if trial(middle) else (fits, middle)
    tolerance = {name: fits * deviation for name, deviation in layers.items()}
    ordered = sorted(trials.values(), key=lambda one: -1.0 if one.share is None else one.share)
    return Calibration(plan.with_tolerance(tolerance), tolerance, trials[fits], tuple(ordered), max_error)


def _as_number(error: Any) -> float:
    """What the user's function gives; NaN, which is larger than nothing, would count as no error."""
    try:
        number = float(error)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not number >= 0:
        raise SparseBlockError(
            f"calibrate: error= gives {error!r} for two results; it must give a number of at least 0, the larger the "
            "further they are apart"
        )
    return number


def _run(plan: ExactPlan, frames: list[torch.Tensor], share: float | None, error: Callable[[Any, Any], float]) -> Trial:
    first = frames[0]
    if not isinstance(first, torch.Tensor) or first.dim() != 4:
        raise SparseBlockError(f"calibrate: a frame is {type(first).__name__}; it must be a tensor [n, c, h, w]")
    state = plan.new_state(len(first))
    worst = macs = 0
    for number, frame in enumerate(frames):
        worst = max(worst, error(plan(frame, None, state), state))
        macs += plan.stats(state).macs if number else 0
    return Trial(share, worst, macs / (plan.macs * state.streams * (len(frames) - 1) or 1))


class _Deviations:
    """Standard deviations of all values that have a plane, over frames."""

    def __init__(self, plan: ExactPlan) -> None:
        (frame,) = plan.graph.inputs
        self._layers = {frame: FRAME}
        for node in plan.graph.nodes:
            if not node.is_view and plan.graph.values[node.output].is_map:
                self._layers[node.output] = node.name
        self._sums: dict[str, list[float]] = {}

    def add(self, state: Any) -> None:
        """The values of one frame."""
        for name in self._layers:
            try:
                value = state[name].double()
            except SparseBlockError:  # lies in no plane: only torch touches it
                continue
            finite = value[value.isfinite()]
            sums = (float(finite.sum()), float(finite.square().sum()), finite.numel())
            self._sums[name] = [a + b for a, b in zip(self._sums.get(name, (0.0, 0.0, 0)), sums, strict=True)]

    def by_layer(self) -> dict[str, float]:
        """The smallest deviation of a layer's values, by its name."""
        found: dict[str, float] = {}
        for name, (total, squares, count) in self._sums.items():
            deviation = math.sqrt(max(squares / count - (total / count) ** 2, 0.0)) if count else 0.0
            layer = self._layers[name]
            found[layer] = min(found.get(layer, math.inf), deviation)
        return found
