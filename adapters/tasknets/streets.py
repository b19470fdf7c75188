"""StreetsNet: a small residual encoder-decoder that segments the scenes of `tasknets.scenes`.

Trained by `python -m tasknets.train_streets`; the package carries its weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_WIDTHS = (32, 64, 96, 128)  # channels at strides 2, 4, 8, 16


class StreetsNet(nn.Module):
    """Class logits at a quarter of the frame: float32 [n, 3, h, w] to [n, classes, ceil(h / 4), ceil(w / 4)]."""

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = _WIDTHS
        self.stem = nn.Sequential(
            *_conv_norm(3, half, stride=2), nn.ReLU(), *_conv_norm(half, quarter, stride=2), nn.ReLU()
        )
        self.quarter = _Residual(quarter)
        self.eighth = nn.Sequential(*_conv_norm(quarter, eighth, stride=2), nn.ReLU(), _Residual(eighth))
        self.sixteenth = nn.Sequential(
            *_conv_norm(eighth, sixteenth, stride=2), nn.ReLU(), _Residual(sixteenth), _Residual(sixteenth)
        )
        self.up_eighth = _Up(sixteenth, eighth)
        self.up_quarter = _Up(eighth, quarter)
        self.logits = nn.Conv2d(quarter, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        quarter = self.quarter(self.stem(x))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        return self.logits(self.up_quarter(self.up_eighth(sixteenth, eighth), quarter))


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv_norm(c, c), nn.ReLU(), *_conv_norm(c, c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class _Up(nn.Module):
    """Narrow the coarse map, enlarge it to the fine one, add, blend."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(*_conv_norm(coarse, fine, kernel=1))
        self.blend = nn.Sequential(*_conv_norm(fine, fine), nn.ReLU())

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        coarse = F.interpolate(self.narrow(coarse), fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.blend(coarse + fine)


def _conv_norm(c: int, k: int, kernel: int = 3, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(c, k, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(k)
