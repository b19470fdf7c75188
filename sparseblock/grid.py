"""Where things are: every extent, halo and block formula of the library lives in this file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparseblock.errors import SparseBlockError


def conv_extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Output pixels of a convolution or pooling window along one axis of `size` pixels (floor mode)."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def conv_transpose_extent(size: int, kernel: int, stride: int, padding: int, dilation: int, output_padding: int) -> int:
    """Output pixels of a transposed convolution along one axis of `size` pixels."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


@dataclass(frozen=True)
class BlockGrid:
    """The grid of blocks over a frame.

    `height`, `width` and `block_size` are in pixels of the frame; the frame need not be a multiple of the block: the
    last row and column of blocks are then partial. One grid serves a whole network: at stride s a block is
    `block_size / s` pixels of that feature map.
    """

    height: int
    width: int
    block_size: int

    def __post_init__(self) -> None:
        for name in ("height", "width", "block_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SparseBlockError(f"BlockGrid: {name} is {value!r}; it must be a positive integer (pixels)")

    @property
    def rows(self) -> int:
        return math.ceil(self.height / self.block_size)

    @property
    def cols(self) -> int:
        return math.ceil(self.width / self.block_size)

    def block_at(self, stride: int, height: int, width: int) -> int:
        """Block size in pixels of a [height, width] feature map at `stride`.

        Raises SparseBlockError where the grid does not carry over: the stride does not divide the block, or the blocks
        do not cover the map. The message is the reason that a plan's report gives for running such a map dense.
        """
        if self.block_size % stride:
            raise SparseBlockError(f"block of {self.block_size} px is no multiple of the stride {stride}")
        block = self.block_size // stride
        if self.rows * block < height or self.cols * block < width:
            raise SparseBlockError(
                f"{self.rows}x{self.cols} blocks of {block} px do not cover "
                f"a map of {height}x{width} at stride {stride}"
            )
        return block
