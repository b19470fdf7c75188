"""VDSR: super-resolution as a residual on the already enlarged frame.

"Accurate Image Super-Resolution Using Very Deep Convolutional Networks", Kim et al., CVPR 2016.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class VDSR(nn.Module):
    """Luma in, sharper luma out, both float32 [n, 1, h, w] with values about [0, 1]; 664,704 parameters, no bias."""

    def __init__(self, depth: int = 20, width: int = 64) -> None:
        super().__init__()
        self.input = _conv(1, width)
        self.relu = nn.ReLU()
        self.residual_layer = nn.Sequential(
            *(nn.Sequential(OrderedDict(conv=_conv(width, width), relu=nn.ReLU())) for _ in range(depth - 2))
        )
        self.output = _conv(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.output(self.residual_layer(self.relu(self.input(x))))


def _conv(c: int, k: int) -> nn.Conv2d:
    return nn.Conv2d(c, k, 3, padding=1, bias=False)
