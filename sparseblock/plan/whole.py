"""From which share of changed tiles on an exact plan runs a frame whole: measured when the plan is made.

Following changes and computing them in small tiles costs more than computing everything once most of it has changed.
Both give the same bits, so the choice is one of time alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sparseblock.errors import SparseBlockError
from sparseblock.plan.choice import MARGIN

SHARES = (0.5, 0.25, 0.125, 0.0625, 0.03125)
MACROBLOCK = 16  # pixels; what a codec changes comes in blocks of so many
SHORT = 0.05  # seconds: frames that take less are timed ROUNDS times
ROUNDS = 3


@dataclass(frozen=True)
class WholeChoice:
    """When a frame runs whole.

    Attributes:
        share: of a stream's tiles of 4 pixels: where as many or more hold a changed pixel, it runs whole.
        seconds: of a whole frame; None where the share was given.
        measured: (share, seconds) of frames with so many tiles changed, in scattered blocks, computed tile by tile.
    """

    share: float
    seconds: float | None = None
    measured: tuple[tuple[float, float], ...] = ()

    def __str__(self) -> str:
        line = f"frames of which {100 * self.share:.3g} % or more of the tiles changed run whole"
        if self.seconds is None:
            return f"{line}: given"
        tiles = ", ".join(f"{100 * share:.3g} % changed {1e3 * seconds:.3g} ms" for share, seconds in self.measured)
        return f"{line}: whole takes {1e3 * self.seconds:.3g} ms; tile by tile, {tiles}"


def checked_share(share: float | None) -> float | None:
    """Raises SparseBlockError unless it is a share, or None."""
    if share is not None and (isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1):
        raise SparseBlockError(
            f"compile: whole_from is {share!r}; it must be a share from 0, where any change makes a frame run whole, "
            "to 1, where only one that changed everywhere does, or None to measure it"
        )
    return share


def measure(run: Callable[[torch.Tensor, float], None], shape: tuple[int, ...]) -> WholeChoice:
    """The choice for frames of `shape`, [1, c, h, w].

    Args:
        run: runs the next frame of a video, whole if at least the given share of its tiles changed.
    """
    generator = torch.Generator().manual_seed(0)
    frame = torch.rand(shape, generator=generator)
    run(frame, 0.0)  # warms up
    whole = _seconds(run, frame, 1.0, 0.0, generator)
    rounds = ROUNDS if whole < SHORT else 1
    chosen, measured = 1.0, []
    for share in SHARES:
        seconds = math.inf
        for _ in range(rounds):  # in turn, so that what else the machine does falls on both
            seconds = min(seconds, _seconds(run, frame, share, math.inf, generator))
            whole = min(whole, _seconds(run, frame, 1.0, 0.0, generator))
        measured.append((share, seconds))
        if seconds <= MARGIN * whole:
            break
        chosen = share
    return WholeChoice(chosen, whole, tuple(measured))


def _seconds(
    run: Callable[[torch.Tensor, float], None],
    frame: torch.Tensor,
    share: float,
    whole_from: float,
    generator: torch.Generator,
) -> float:
    """Changes a share of the frame's macroblocks, and the time that the frame then takes."""
    _, _, h, w = frame.shape
    rows, cols = math.ceil(h / MACROBLOCK), math.ceil(w / MACROBLOCK)
    chosen = torch.zeros(rows * cols, dtype=torch.bool)
    chosen[torch.randperm(rows * cols, generator=generator)[: max(1, round(share * rows * cols))]] = True
    pixels = chosen.view(rows, cols).repeat_interleave(MACROBLOCK, 0).repeat_interleave(MACROBLOCK, 1)[:h, :w]
    frame[..., pixels] = torch.rand(int(pixels.sum()), generator=generator)
    start = time.perf_counter()
    run(frame, whole_from)
    return time.perf_counter() - start
