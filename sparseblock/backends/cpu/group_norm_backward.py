"""Gradient of group_norm, cpu backend: on packed blocks, and through the statistics of each image."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu.gradients import differentiate, pack, unpack


def group_norm_backward(call, grad, packed, needs):
    place, (n, c) = (call.index, call.count, call.block), grad.shape[:2]
    image = call.index[: len(packed), 0].long()
    mean, variance = _statistics(call, call.moments.double())
    centered = pack(call.x, *place) - mean[image].float()
    scale = (variance + call.eps).rsqrt()
    weight = grad.new_ones(c) if call.weight is None else call.weight
    scaled = packed * weight[:, None, None]
    grads = {"weight": (packed * centered * scale[image].float()).sum((0, 2, 3))}
    if "x" in needs:
        grads["x"] = unpack(scaled * scale[image].float(), *place, torch.zeros_like(grad))
    if "moments" in needs:

        def summed(values):
            return values.new_zeros(n, c).index_add(0, image, values.sum((2, 3))).double()[..., None, None]

        of_both = (-scale * summed(scaled), -0.5 * scale**3 * summed(scaled * centered))
        (moments,) = differentiate(
            lambda moments: torch.cat(_statistics(call, moments), 1), [call.moments.double()], torch.cat(of_both, 1)
        )
        grads["moments"] = moments.float()
    return grads


def _statistics(call, moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the group of every channel, each [n, c, 1, 1], from the moments of cells."""
    rows, cols = (
        (size - torch.arange(0, size, side)).clamp(max=side)
        for size, side in zip(call.shapes["x"][2:], call.cell, strict=True)
    )
    pixels, groups = rows[:, None] * cols[None, :], call.num_groups
    means, deviations = (part.unflatten(1, (groups, -1)) for part in moments.chunk(2, 1))
    count = pixels.sum() * means.shape[2]
    mean = (means * pixels).sum((2, 3, 4), keepdim=True) / count
    variance = (deviations + pixels * (means - mean).square()).sum((2, 3, 4), keepdim=True) / count
    return tuple(part.expand(-1, -1, means.shape[2], 1, 1).flatten(1, 2) for part in (mean, variance))
