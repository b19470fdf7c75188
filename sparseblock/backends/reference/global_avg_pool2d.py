"""global_avg_pool2d of the reference backend."""

from __future__ import annotations

import torch

from sparseblock.backends.reference.masked import store


def global_avg_pool2d(moments, index, count, block, out, size, cell) -> None:
    store(mean(moments, size, cell), index, count, block, out)


def mean(moments: torch.Tensor, size, cell) -> torch.Tensor:
    """[n, c, 1, 1]: of a map of `size` from the means of its cells."""
    return (moments * pixels(size, cell, moments)).sum((2, 3), keepdim=True) / (size[0] * size[1])


def pixels(size, cell, like: torch.Tensor) -> torch.Tensor:
    """[rows, cols], of the dtype and device of `like`: the pixels of a map of `size` in each cell."""
    sides = [
        torch.tensor(
            [min(side, length - start) for start in range(0, length, side)], dtype=like.dtype, device=like.device
        )
        for length, side in zip(size, cell, strict=True)
    ]
    return sides[0][:, None] * sides[1][None, :]
