"""What a caller says is active in a frame, checked: a BlockSet or a mask over the blocks of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sparseblock.blocks import BlockSet, check_values, describe, is_mask
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid


def check_blocks(blocks: Any, grid: BlockGrid, streams: int) -> None:
    """Raises SparseBlockError unless it is a BlockSet or a bool mask [n, rows, cols] over `grid`, and has values."""
    expected, size = (streams, grid.rows, grid.cols), grid.block_size
    is_set = isinstance(blocks, BlockSet)
    if not (is_set and blocks.grid == expected) and not (is_mask(blocks) and blocks.shape == expected):
        raise SparseBlockError(
            f"plan: blocks is {describe(blocks)}; it must be None, a BlockSet or a dense bool mask of "
            f"{list(expected)} [n, rows, cols]"
        )
    if is_set and blocks.block != (size, size):
        raise SparseBlockError(
            f"plan: blocks are of {'x'.join(map(str, blocks.block))} px but this plan's are of {size}x{size}; "
            f"make them with block={size}, or compile a plan with their block_size"
        )
    check_values("plan: blocks are", blocks.index if is_set else blocks)


def check_first_frames(mask: torch.Tensor, frames: Sequence[int]) -> None:
    """Raises SparseBlockError unless `mask`, bool [n, rows, cols], is whole in streams of which `frames`, the number of
    frames that each has seen, is 0.
    """
    for stream, seen in enumerate(frames):
        if not seen and not mask[stream].all():
            raise SparseBlockError(
                f"plan: stream {stream} has {int(mask[stream].sum())} of {mask[stream].numel()} blocks active in its "
                "first frame; there is nothing to keep yet: give it all blocks"
            )
