"""block_norm of the reference backend."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def block_norm(x, y, index, count, block, out, cell, norm) -> None:
    x, y = widened(x, y)
    difference = x if y is None else x - y
    sides = [-length % side for length, side in zip(x.shape[2:], cell, strict=True)]
    whole = F.pad(difference, (0, sides[1], 0, sides[0])).unflatten(3, (-1, cell[1])).unflatten(2, (-1, cell[0]))
    order = {"l1": 1, "l2": 2, "max": torch.inf}[norm]
    cells = whole.permute(0, 2, 4, 1, 3, 5).flatten(3)  # [n, rows, cols, values]
    store(torch.linalg.vector_norm(cells, order, dim=3)[:, None], index, count, block, out)
