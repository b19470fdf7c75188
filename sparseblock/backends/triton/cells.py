"""What kernels that sum over cells, or maps of them, have in common. Sums are in double precision and one order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SUMMED = 1024  # elements that a program adds at a time


def widths(channels: int) -> dict[str, int]:
    """PIXELS by CHANNELS that are added at a time, of so many channels."""
    across = min(triton.next_power_of_2(channels), 32)
    return {"PIXELS": SUMMED // across, "CHANNELS": across}


def cells_of(block, out: torch.Tensor) -> int:
    """Of a block at most."""
    return min(block[0], out.shape[2]) * min(block[1], out.shape[3])


@triton.jit
def side_of(i, cell, size):
    """Pixels of the cell in row or column `i`."""
    return tl.minimum(cell, size - i * cell)


@triton.jit
def summed(v):
    """The sum of all of a tile, [1, 1]."""
    return tl.sum(tl.sum(v, axis=1), axis=0) + tl.zeros([1, 1], v.dtype)
