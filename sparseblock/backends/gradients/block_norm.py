"""Gradient of block_norm: on packed blocks of pixels."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import differentiate, pack_cells, unpack_cells

ORDERS = {"l1": 1, "l2": 2, "max": torch.inf}


def block_norm_backward(call, grad, packed, needs):
    difference = call.x if call.y is None else call.x - call.y
    # Torch gives that of expanded maps another order.
    difference = difference.contiguous(memory_format=torch.channels_last)

    def norm(cells):
        return torch.linalg.vector_norm(cells.movedim(1, 3).flatten(3), ORDERS[call.norm], dim=3)[:, None]

    cells = differentiate(norm, {"cells": pack_cells(call, difference)}, packed, {"cells"})["cells"]
    of_difference = unpack_cells(call, cells, call.shapes["x"])
    grads = {}
    if "x" in needs:
        grads["x"] = of_difference
    if "y" in needs:
        grads["y"] = -of_difference
    return grads
