"""When blocks are recomputed whatever the policy says: scene cuts, and a maximum age."""

from __future__ import annotations

import torch

from blockcopy.view import spread

CUT_JUMP = 4.0
"""A cut is so many times the running level of the distance between frames."""

LEVEL_MOMENTUM = 0.9


class SceneCut:
    """Says where a frame shows another scene than the one before.

    The distance between two frames is |a - b|^2 / (|a|^2 + |b|^2) of their small pictures less each channel's mean: 0
    for the same picture, about 1 for unrelated ones, and small under a change of exposure, which is no cut. A cut is
    a distance above the threshold that is also CUT_JUMP times the running level of distances, so that a wild camera
    is not one cut after another. A cut sets the level: what follows it within a few frames is the same cut.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.reset()

    def __call__(self, small: torch.Tensor) -> bool:
        """Whether `small`, float [1, c, y, x], starts another scene than the frame of the last call."""
        picture = small - small.mean((-2, -1), keepdim=True)
        energy = _norm(picture) ** 2
        previous, self._previous = self._previous, (picture, energy)
        if previous is None:
            return False
        total = energy + previous[1]
        distance = _norm(picture - previous[0]) ** 2 / total if total > 0 else 0.0
        cut = distance > self.threshold and distance > CUT_JUMP * self._level
        self._level = distance if cut else LEVEL_MOMENTUM * self._level + (1 - LEVEL_MOMENTUM) * distance
        return cut

    def reset(self) -> None:
        self._previous: tuple[torch.Tensor, float] | None = None  # the picture and |picture|^2
        self._level = 0.0


def _norm(picture: torch.Tensor) -> float:
    return torch.linalg.vector_norm(picture).item()


def age_limits(rows: int, cols: int, max_age: int) -> torch.Tensor:
    """The age at which each block is recomputed, int64 [rows, cols], spread over (max_age / 2, max_age].

    A frame that executes everything makes all blocks the same age: with one limit for all they would fall due all at
    once.
    """
    return (max_age - (spread(rows * cols) * (max_age // 2)).floor().long()).view(rows, cols)
