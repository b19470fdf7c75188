"""From the blocks of the caller's frame to the blocks of the frame that the parts of a model see.

A detector resizes and pads a frame before its first convolution. Which of the blocks behind that a block of the frame
reaches is not derived but measured: the rows of one block are changed, and what comes out is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.strides import stride_by_size


@dataclass(frozen=True, eq=False)
class Carry:
    """The grid of the parts, and how it hangs on the grid of the frame.

    Attributes:
        grid: of the parts.
        stride: pixels of the parts' grid per element of the map that the first part reads.
        rows, cols: bool [rows or cols of `grid`, rows or cols of the frame's grid]: which are reached from which. None
            where both grids are one.
    """

    grid: BlockGrid
    stride: Fraction
    rows: torch.Tensor | None = None
    cols: torch.Tensor | None = None

    def mask(self, mask: torch.Tensor) -> torch.Tensor:
        """bool [n, rows, cols] over `grid`: the blocks that those of `mask`, over the frame's grid, reach."""
        if self.rows is None:
            return mask
        return (self.rows.float() @ mask.float() @ self.cols.float().T) > 0

    def share_out(self, macs: torch.Tensor) -> torch.Tensor:
        """int64 MACs of the blocks of `grid`, shared out evenly among the blocks of the frame that reach them."""
        if self.rows is None:
            return macs
        rows, cols = (reach.double() / reach.sum(1, keepdim=True) for reach in (self.rows, self.cols))
        shared = (rows.T @ macs.double() @ cols).floor().long()
        shared.view(-1)[shared.argmax()] += macs.sum() - shared.sum()  # what rounding left over
        return shared


def carry(frame: Any, grid: BlockGrid, read: Callable[[Any], torch.Tensor]) -> Carry:
    """How the blocks of `grid` over `frame` reach the map that `read` makes of a frame.

    Where that map is the frame at a stride, its blocks are the frame's. Otherwise it is a frame of its own, with blocks
    of as many pixels. What no block of the frame reaches, such as padding, goes with the nearest block that is reached.

    Raises:
        SparseBlockError: the map does not depend on the frame.
    """
    before = read(frame)
    size = tuple(before.shape[-2:])
    stride = stride_by_size((grid.height, grid.width), size)
    if stride is not None:
        return Carry(grid, stride)
    inner = BlockGrid(*size, grid.block_size)
    rows = torch.zeros(inner.rows, grid.rows, dtype=torch.bool)
    cols = torch.zeros(inner.cols, grid.cols, dtype=torch.bool)
    for reach, axis in ((rows, -2), (cols, -1)):
        for number in range(reach.shape[1]):
            changed = read(_changed(frame, axis, number * grid.block_size, grid.block_size)) != before
            along = changed.flatten(0, -3).any(0).any(-1 if axis == -2 else -2)
            reach[:, number] = torch.stack([part.any() for part in along.split(grid.block_size)])
    if not rows.any() or not cols.any():
        raise SparseBlockError(
            f"compile: the first part reads a map of {list(size)} that does not depend on the frame; name other parts="
        )
    return Carry(inner, Fraction(1), _nearest(rows), _nearest(cols))


def _changed(frame: Any, axis: int, start: int, length: int) -> Any:
    """The frame with other values in some rows (axis -2) or columns (axis -1)."""

    def change(image: torch.Tensor) -> torch.Tensor:
        image = image.clone()
        part = image.narrow(axis, start, min(length, image.shape[axis] - start))
        part.add_(1.0)
        return image

    return pytree.tree_map_only(torch.Tensor, change, frame)


def _nearest(reach: torch.Tensor) -> torch.Tensor:
    reached = reach.any(1).nonzero()[:, 0]
    number = torch.arange(len(reach))
    return reach[reached[(number[:, None] - reached).abs().argmin(1)]]
