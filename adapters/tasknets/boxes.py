"""Boxes of detectors: how much they overlap, and which of many candidates stand."""

from __future__ import annotations

import torch

MOST = 1000
"""Candidates of a frame that are looked at, the best ones."""


def overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every box of a, [n, 4], with every box of b, [m, 4]: [n, m]; 0 where both are empty.

    Boxes are left, top, right, bottom.
    """
    shared = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(0)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp(0).prod(1) for x in (a, b))
    intersection = shared.prod(2)
    union = area_a[:, None] + area_b[None] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def suppressed(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, overlap: float
) -> dict[str, torch.Tensor]:
    """The candidates that stand, best first: those that overlap no better one of their class by more than `overlap`.

    Args:
        boxes: float32 [n, 4], left, top, right, bottom in pixels; scores: float32 [n]; labels: int64 [n].
        overlap: intersection over union, in [0, 1].

    Returns:
        {"boxes": [k, 4], "scores": [k], "labels": [k]}, as torchvision's detectors have them.
    """
    rest = scores.argsort(descending=True)[:MOST]
    kept = []
    while len(rest):
        best, rest = rest[:1], rest[1:]
        kept.append(best)
        rival = (overlaps(boxes[best], boxes[rest])[0] > overlap) & (labels[rest] == labels[best])
        rest = rest[~rival]
    chosen = torch.cat(kept) if kept else rest
    return {"boxes": boxes[chosen], "scores": scores[chosen], "labels": labels[chosen]}
