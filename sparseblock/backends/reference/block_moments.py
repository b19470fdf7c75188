"""block_moments of the reference backend."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def block_moments(x, index, count, block, out, cell, order) -> None:
    (x,) = widened(x)
    store(moments(x, cell, order), index, count, block, out)


def moments(x: torch.Tensor, cell, order: int) -> torch.Tensor:
    """[n, order * c, rows, cols]: means of cells, and squared deviations."""
    rows, cols = (-(-length // side) for length, side in zip(x.shape[2:], cell, strict=True))
    below, beside = rows * cell[0] - x.shape[2], cols * cell[1] - x.shape[3]

    def cells(pixels):
        """[n, c, rows, cols, cell's rows, cell's cols], zeros where the map ends."""
        whole = F.pad(pixels, (0, beside, 0, below))
        return whole.reshape(*whole.shape[:2], rows, cell[0], cols, cell[1]).transpose(3, 4)

    inside = cells(torch.ones_like(x))
    mean = cells(x).sum((4, 5)) / inside.sum((4, 5))
    deviations = torch.where(inside > 0, cells(x) - mean[..., None, None], 0.0).square().sum((4, 5))
    return mean if order == 1 else torch.cat([mean, deviations], 1)
