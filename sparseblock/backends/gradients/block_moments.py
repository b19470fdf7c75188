"""Gradient of block_moments: on packed blocks of pixels."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import pack_cells, unpack_cells


def block_moments_backward(call, grad, packed, needs):
    """A mean spreads evenly; a sum of squared deviations d has the slope 2 d, as deviations add up to 0."""
    x, inside = pack_cells(call, call.x), pack_cells(call, torch.ones_like(call.x[:, :1]))
    of_means, *of_squares = (part[..., None, None] for part in packed.split(x.shape[1], 1))
    pixels = inside.sum((4, 5), keepdim=True).clamp(min=1)
    grad = of_means / pixels
    for part in of_squares:
        grad = grad + 2 * part * (x - x.sum((4, 5), keepdim=True) / pixels)
    return {"x": unpack_cells(call, grad, call.shapes["x"])}
