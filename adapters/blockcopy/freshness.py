"""When blocks are recomputed whatever the policy says: scene cuts, and a maximum age."""

from __future__ import annotations

import torch

from blockcopy.numbers import HOST, Number, Numbers
from blockcopy.reward import running_mean
from blockcopy.view import spread
from sparseblock.dense import picture_distance

CUT_JUMP = 4.0
"""A cut is so many times the running level of the distance between frames."""

PIXEL_LIMIT = 2.0
"""What a pixel counts for at most in the distance of two pictures."""

LEVEL_MOMENTUM = 0.9


class SceneCut:
    """Says where a frame shows another scene than the one before.

    The distance between two frames is `sparseblock.dense.picture_distance` of their small pictures: 0 for the same
    picture, about 1 for unrelated ones, and small under a change of exposure, which is no cut, and where little of the
    picture changes, however much: a car that drives into an empty street is none. A cut is a distance above the
    threshold that is also CUT_JUMP times the running level of distances, so that a wild camera is not one cut after
    another. A cut sets the level: what follows it within a few frames is the same cut.
    """

    lasting = ("previous", "level")

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.begin(HOST)

    def begin(self, numbers: Numbers) -> None:
        """Before the first frame of a stream."""
        self._numbers = numbers
        self.previous: torch.Tensor | None = None
        self.level = numbers.of(0.0)

    def __call__(self, small: torch.Tensor) -> Number:
        """Whether `small`, float [1, c, y, x], starts another scene than the frame of the last call."""
        previous, self.previous = self.previous, small
        if previous is None:
            return False
        distance = picture_distance(small, previous, PIXEL_LIMIT)
        cut = (distance > self.threshold) & (distance > CUT_JUMP * self.level)
        self.level = self._numbers.where(cut, distance, running_mean(self.level, distance, LEVEL_MOMENTUM))
        return cut


def age_limits(rows: int, cols: int, max_age: int) -> torch.Tensor:
    """The age at which each block is recomputed, int64 [rows, cols], spread over (max_age / 2, max_age].

    A frame that executes everything makes all blocks the same age: with one limit for all they would fall due all at
    once.
    """
    return (max_age - (spread(rows * cols) * (max_age // 2)).floor().long()).view(rows, cols)
