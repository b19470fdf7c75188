"""Gradient of group_norm: on packed blocks, and through the statistics of each image."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import differentiate, of_images, pack, unpack, zeros


def group_norm_backward(call, grad, packed, needs):
    n, c, *size = grad.shape
    mean, variance = _statistics(call, call.moments.double())
    scale = (variance + call.eps).rsqrt()
    means, scales = (of_images(call, x).float() for x in (mean, scale))
    centered = pack(call, call.x) - means
    weight = grad.new_ones(c) if call.weight is None else call.weight
    scaled = packed * weight[:, None, None]
    grads = {}
    if "weight" in needs:
        grads["weight"] = (packed * centered * scales).sum((0, 2, 3))
    if "x" in needs:
        grads["x"] = unpack(call, scaled * scales, torch.zeros_like(grad))
    if "moments" in needs:

        def summed(values):  # by image, in the order of its blocks' places, not of the list
            grid = [-(-side // length) for side, length in zip(size, call.block, strict=True)]
            blocks = unpack(call, values.sum((2, 3), keepdim=True), zeros([n, c, *grid], grad), [1, 1])
            return blocks.double().sum((2, 3), keepdim=True)

        of_both = (-scale * summed(scaled), -0.5 * scale**3 * summed(scaled * centered))
        of_moments = differentiate(
            lambda moments: torch.cat(_statistics(call, moments), 1),
            {"moments": call.moments.double()},
            torch.cat(of_both, 1),
            {"moments"},
        )
        grads["moments"] = of_moments["moments"].float()
    return grads


def _statistics(call, moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the group of every channel, each [n, c, 1, 1], from the moments of cells."""
    pixels, groups = pixels_of_cells(call.shapes["x"][2:], call.cell, moments.device), call.num_groups
    means, deviations = (part.unflatten(1, (groups, -1)) for part in moments.chunk(2, 1))
    count = pixels.sum() * means.shape[2]
    mean = (means * pixels).sum((2, 3, 4), keepdim=True) / count
    variance = (deviations + pixels * (means - mean).square()).sum((2, 3, 4), keepdim=True) / count
    return tuple(part.expand(-1, -1, means.shape[2], 1, 1).flatten(1, 2) for part in (mean, variance))


def pixels_of_cells(size, cell, device) -> torch.Tensor:
    """How many each cell of a map of `size` has, [rows, cols]."""
    rows, cols = (
        (length - torch.arange(0, length, side, device=device)).clamp(max=side)
        for length, side in zip(size, cell, strict=True)
    )
    return rows[:, None] * cols[None, :]
