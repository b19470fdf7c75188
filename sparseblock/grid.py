"""Where things are: every extent, halo and block formula of the library lives in this file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparseblock.errors import SparseBlockError

LIMIT = 2**31  # sizes are int32 in the kernels


def conv_extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Output pixels of a convolution or pooling window along one axis of `size` pixels (floor mode)."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def conv_transpose_extent(size: int, kernel: int, stride: int, padding: int, dilation: int, output_padding: int) -> int:
    """Output pixels of a transposed convolution along one axis of `size` pixels."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def trailing_padding(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pixels that the last of `out` windows reads past the end of an axis of `size` pixels padded in front."""
    return max((out - 1) * stride + dilation * (kernel - 1) + 1 - padding - size, 0)


def pool_extent(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Output pixels of a pooling window along one axis of `size` pixels.

    Ceil mode lets the last window hang over the end, but not start past the frame and its left padding, as PyTorch.
    """
    if not ceil_mode:
        return conv_extent(size, kernel, stride, padding, dilation)
    extent = conv_extent(size + stride - 1, kernel, stride, padding, dilation)
    return extent - 1 if (extent - 1) * stride >= size + padding else extent


def cell_extent(size: int, cell: int) -> int:
    """Cells of `cell` pixels that cover one axis of `size` pixels, the last one perhaps in part."""
    return math.ceil(size / cell)


def interpolate_extent(size: int, scale_factor: float) -> int:
    """Output pixels of a resize by `scale_factor` along one axis of `size` pixels."""
    return math.floor(size * scale_factor)


def interpolate_scale(size: int, out_size: int, mode: str, align_corners: bool, scale_factor: float | None) -> float:
    """Input pixels per output pixel of a resize along one axis, as PyTorch computes it.

    A scale factor that is given counts, even where `size * scale_factor` is no whole number; aligned corners ignore it,
    so does an output that turns out as large as the input, and, for "nearest", one that is twice as large.
    PyTorch holds the result in the precision of the tensor; rounding this double to float32 gives the same bits.
    """
    if align_corners:
        return (size - 1) / (out_size - 1) if out_size > 1 else 0.0
    if scale_factor is None or out_size == size or (mode == "nearest" and out_size == 2 * size):
        return size / out_size
    return 1.0 / scale_factor


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
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < LIMIT:
                raise SparseBlockError(
                    f"BlockGrid: {name} is {value!r}; it must be a positive integer (pixels) below 2**31"
                )

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
