"""What the policy sees: frame and output, small, on a raster that lies the same way in every block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from blockcopy.numbers import HOST, Number, Numbers
from blockcopy.policy_file import number
from blockcopy.reward import running_mean
from sparseblock import BlockGrid, SparseBlockError
from sparseblock.dense import area_mean, sample

PIXELS = 8
"""Policy pixels along the side of a block, whatever the block's size."""

SAMPLE_STEP = 16
"""Pixels of the frame between two samples of the output (BlockCopy: information gain at 1/16 of the frame)."""

MOMENTUM = 0.99
"""Weight of the past in the moments by which frames are standardised."""


class PolicyView:
    """Shrinks frames and outputs of one size to the policy's raster.

    Attributes:
        grid: the blocks over the frame.
        samples: samples of the output along the side of a block: block_size / 16, as a power of two from 1 to 8.
    """

    def __init__(self, grid: BlockGrid) -> None:
        self.grid = grid
        self.samples = 1 << min(max(grid.block_size // SAMPLE_STEP, 1), PIXELS).bit_length() - 1
        # A block that is no multiple of 8 pixels is averaged on the finest raster that fits it, then repeated.
        self._fit = math.gcd(grid.block_size, PIXELS)
        self._rasters: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}  # where samples of a map lie

    def frame(self, frame: torch.Tensor) -> tuple[torch.Tensor, Number]:
        """Area averages of a frame [1, c, h, w], [1, c, rows * 8, cols * 8], and whether the frame is finite.

        Every pixel enters exactly one average. Past the frame, in partial blocks, the nearest average is repeated.
        """
        window = self.grid.block_size // self._fit
        small, finite = area_mean(frame, window, self.grid.rows * self._fit, self.grid.cols * self._fit)
        return enlarge(small, PIXELS // self._fit), finite

    def output(self, output: torch.Tensor) -> torch.Tensor:
        """Single pixels of an output [1, k, h', w'] of any stride: a copy, [1, k, rows * samples, cols * samples].

        A sample of a block lies in that block of the output. The copy costs a few thousand reads; the output is a
        live view of the network's cache that the next frame overwrites.

        Raises:
            SparseBlockError: the output is no map over the frame.
        """
        if not isinstance(output, torch.Tensor) or output.dim() != 4 or output.shape[0] != 1:
            raise SparseBlockError(
                f"BlockCopy: the network's output is {describe(output)}; the policy learns from one tensor "
                "[1, k, h, w]; give read=, a function that takes that from the output, or choose another policy or task"
            )
        size = tuple(output.shape[2:])
        if size not in self._rasters:
            y = self._positions(self.grid.rows, self.grid.height, size[0])
            x = self._positions(self.grid.cols, self.grid.width, size[1])
            self._rasters[size] = y.to(output.device), x.to(output.device)
        return sample(output, *self._rasters[size])

    def _positions(self, blocks: int, frame: int, output: int) -> torch.Tensor:
        """Where the samples lie along one axis, in pixels of the output."""
        stride = max(1, round(frame / output))
        place = torch.arange(self.samples) * 2 + 1
        place = torch.div(place * self.grid.block_size, 2 * self.samples, rounding_mode="floor")
        place = (torch.arange(blocks)[:, None] * self.grid.block_size + place).flatten().clamp(max=frame - 1)
        return torch.div(place, stride, rounding_mode="floor").clamp(max=output - 1)


class Standardise:
    """Scales small frames to mean 0 and variance 1 per channel, by running moments over the frames.

    So the policy sees the same numbers whether the network takes [0, 1], [0, 255] or anything else.

    Attributes:
        mean, variance: [c], lists of numbers; None before the first frame.
    """

    lasting = ("mean", "variance")

    def __init__(self) -> None:
        self._numbers = HOST
        self.mean: Any = None
        self.variance: Any = None

    def begin(self, small: torch.Tensor, numbers: Numbers) -> None:
        """Before the first frame of a stream.

        Raises:
            SparseBlockError: what was loaded is of frames with another number of channels.
        """
        self._numbers = numbers
        if self.mean is not None:
            if len(self.mean) != small.shape[1]:
                raise SparseBlockError(
                    f"BlockCopy: the saved policy is of frames with {len(self.mean)} channels but this one has "
                    f"{small.shape[1]}; load a policy that was saved with the same network"
                )
            self.mean, self.variance = numbers.listed(self.mean), numbers.listed(self.variance)

    def update(self, mean: Any, variance: Any) -> None:
        """Takes in the moments of one frame's channels."""
        if self.mean is None:
            self.mean, self.variance = mean, variance
        else:
            self.mean = self._numbers.each(_moment, self.mean, mean)
            self.variance = self._numbers.each(_moment, self.variance, variance)

    @property
    def deviation(self) -> Any:
        """What frames, less their mean, are divided by: [c]."""
        numbers = self._numbers
        return numbers.each(lambda v: numbers.sqrt(numbers.where(v > 0, v, numbers.of(1.0))), self.variance)

    def state_dict(self) -> dict:
        return {name: None if self.mean is None else list(map(float, getattr(self, name))) for name in self.lasting}

    def load_state_dict(self, state: dict) -> None:
        mean, variance = state["mean"], state["variance"]
        if mean is not None or variance is not None:
            if not isinstance(mean, list) or not isinstance(variance, list) or len(mean) != len(variance):
                raise TypeError("standardise has no two lists of one length")
            mean, variance = ([number(value, "standardise") for value in moment] for moment in (mean, variance))
        self.mean, self.variance = mean, variance


def _moment(old: Number, new: Number) -> Number:
    return running_mean(old, new, MOMENTUM)


def describe(output: Any) -> str:
    """What a network returned, in short: a shape, or the type and what it holds."""
    if isinstance(output, torch.Tensor):
        return str(list(output.shape))
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, (list, tuple)) else "")


def grid_of(small: torch.Tensor) -> tuple[int, int]:
    """(rows, cols) of a small frame [1, c, rows * 8, cols * 8]."""
    return small.shape[2] // PIXELS, small.shape[3] // PIXELS


def enlarge(x: torch.Tensor, times: int) -> torch.Tensor:
    """Nearest-neighbour enlargement of the last two axes."""
    return x if times == 1 else x.repeat_interleave(times, -2).repeat_interleave(times, -1)


def where_blocks(mask: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x in the blocks of `mask`, bool [rows, cols], and y in the others: maps [1, c, rows * s, cols * s]."""
    rows, cols = mask.shape
    by_block = (x.shape[1], rows, x.shape[2] // rows, cols, x.shape[3] // cols)
    return torch.where(mask[:, None, :, None], x.reshape(by_block), y.reshape(by_block)).view(x.shape)


def spread(count: int) -> torch.Tensor:
    """float64 [count] in [0, 1): multiples of the golden ratio, modulo 1. Evenly spread, with neighbours far apart."""
    return torch.arange(count, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2) % 1


def block_mean(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean over each block of a map [..., rows * s, cols * s]: [..., rows, cols]."""
    return _by_block(x, grid).mean((-3, -1))


def block_max(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Maximum over each block of a map [..., rows * s, cols * s]: [..., rows, cols]."""
    return _by_block(x, grid).amax((-3, -1))


def _by_block(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    rows, cols = grid
    return x.reshape(*x.shape[:-2], rows, x.shape[-2] // rows, cols, x.shape[-1] // cols)
