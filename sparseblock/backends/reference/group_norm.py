"""group_norm of the reference backend."""

from __future__ import annotations

import torch

from sparseblock.backends.reference.global_avg_pool2d import pixels
from sparseblock.backends.reference.masked import activate, store, widened


def group_norm(
    x, moments, weight, bias, index, count, block, out, num_groups, eps, cell, activation, slope, bounds
) -> None:
    x, weight, bias = widened(x, weight, bias)
    mean, variance = statistics(moments, x.shape[2:], cell, num_groups)
    dense = (x - mean) / torch.sqrt(variance + eps)
    dense = dense if weight is None else dense * weight[:, None, None]
    dense = dense if bias is None else dense + bias[:, None, None]
    store(activate(dense, activation, slope, bounds), index, count, block, out)


def statistics(moments: torch.Tensor, size, cell, num_groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the group of every channel, each [n, c, 1, 1]."""
    n, c = moments.shape[0], moments.shape[1] // 2
    means, deviations = (part.reshape(n, num_groups, -1, *part.shape[2:]) for part in moments.split(c, 1))
    weights = pixels(size, cell, moments)
    count = weights.sum() * (c // num_groups)
    mean = (means * weights).sum((2, 3, 4), keepdim=True) / count
    variance = (deviations + weights * (means - mean).square()).sum((2, 3, 4), keepdim=True) / count
    return tuple(part.expand(-1, -1, c // num_groups, 1, 1).reshape(n, c, 1, 1) for part in (mean, variance))
