"""picture_distance of the reference backend."""

from __future__ import annotations

import torch


def picture_distance(a, b, most) -> torch.Tensor:
    a, b = (x - x.mean((2, 3), keepdim=True) for x in (a, b))
    energy = (a.square() + b.square()).sum(1).mean()
    distance = ((a - b).square().sum(1) / energy).clamp(max=most).mean()
    return torch.where(energy > 0, distance, torch.zeros_like(distance))
