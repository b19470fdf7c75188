"""picture_distance of the triton backend: operators of torch."""

from __future__ import annotations

import torch


def picture_distance(a, b, most) -> torch.Tensor:
    pictures = torch.cat([a, b]).flatten(2).double()  # [2, c, pixels]
    pictures = pictures - pictures.mean(2, keepdim=True)
    energy = pictures.square().sum() / pictures.shape[2]
    distances = (pictures[0] - pictures[1]).square().sum(0)
    # Flat pictures are 0 / 0 apart: no distance.
    return (distances / energy).clamp(max=most).mean().nan_to_num(0.0)
