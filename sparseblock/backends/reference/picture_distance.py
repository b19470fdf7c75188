"""picture_distance of the reference backend."""

from __future__ import annotations


def picture_distance(a, b, most) -> float:
    a, b = (x - x.mean((2, 3), keepdim=True) for x in (a, b))
    energy = (a.square() + b.square()).sum(1).mean()
    if not energy > 0:
        return 0.0
    return ((a - b).square().sum(1) / energy).clamp(max=most).mean().item()
