"""A detector in the style of the YOLO family: CSP and ELAN stages, pooling pyramid, a neck up and down, three heads.

Stages as in "CSPNet", Wang et al., CVPRW 2020, and "YOLOv7", Wang et al., CVPR 2023. It is there to measure on: there
are no published weights of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tasknets.boxes import suppressed

STRIDES = (8, 16, 32)  # of the three heads


class ELAN(nn.Module):
    """Raw predictions at strides 8, 16 and 32: float32 [n, 3, h, w] to three maps [n, 5 + classes, h', w'].

    The channels are distances to the left, top, right and bottom in units of the stride, objectness, and class logits.
    `detections` turns them into boxes.

    Args:
        classes: 80 of COCO.
        width: channels at stride 2.
    """

    def __init__(self, classes: int = 80, width: int = 16) -> None:
        super().__init__()
        w = [width * 2**i for i in range(5)]  # at strides 2, 4, 8, 16, 32
        self.stem = nn.Sequential(_conv(3, w[0], 3, 2), _conv(w[0], w[1], 3, 2), _Stage(w[1], w[1]))
        self.down8 = nn.Sequential(_conv(w[1], w[2], 3, 2), _Stage(w[2], w[2]))
        self.down16 = nn.Sequential(_conv(w[2], w[3], 3, 2), _Stage(w[3], w[3]))
        self.down32 = nn.Sequential(_conv(w[3], w[4], 3, 2), _Stage(w[4], w[4]), _PoolPyramid(w[4]))
        self.up16, self.up8 = _Stage(w[4] + w[3], w[3]), _Stage(w[3] + w[2], w[2])
        self.to16, self.back16 = _conv(w[2], w[2], 3, 2), _Stage(w[2] + w[3], w[3])
        self.to32, self.back32 = _conv(w[3], w[3], 3, 2), _Stage(w[3] + w[4], w[4])
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(c, c, 3), nn.Conv2d(c, 5 + classes, 1)) for c in (w[2], w[3], w[4])
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        eighth = self.down8(self.stem(x))
        sixteenth = self.down16(eighth)
        deep = self.down32(sixteenth)
        middle = self.up16(torch.cat([_double(deep, sixteenth), sixteenth], 1))
        fine = self.up8(torch.cat([_double(middle, eighth), eighth], 1))
        middle = self.back16(torch.cat([self.to16(fine), middle], 1))
        deep = self.back32(torch.cat([self.to32(middle), deep], 1))
        return [head(level) for head, level in zip(self.heads, (fine, middle, deep), strict=True)]


def detections(output: list[torch.Tensor], threshold: float = 0.5, overlap: float = 0.5) -> dict[str, torch.Tensor]:
    """The objects of one image, as `tasknets.boxes.suppressed` returns them.

    A pixel is an object of its likeliest class, of score sigmoid(objectness) * sigmoid(class); distances below 0 are 0.

    Args:
        output: what ELAN returns.
        threshold: of a score. overlap: with a better box of the class, above which a box is left out.
    """
    boxes, scores, labels = [], [], []
    for level, stride in zip(output, STRIDES, strict=True):
        score, label = level[0, 5:].sigmoid().max(0)
        score = score * level[0, 4].sigmoid()
        rows, cols = (score > threshold).nonzero(as_tuple=True)
        centre = (torch.stack([cols, rows, cols, rows], 1) + 0.5) * stride
        distance = level[0, :4, rows, cols].T.clamp(0) * stride
        boxes.append(centre + distance * distance.new_tensor([-1, -1, 1, 1]))
        scores.append(score[rows, cols])
        labels.append(label[rows, cols])
    return suppressed(torch.cat(boxes), torch.cat(scores), torch.cat(labels), overlap)


class _Stage(nn.Module):
    """One half of the channels through pairs of 3x3 convolutions, all results side by side, and a 1x1 over them."""

    def __init__(self, c: int, k: int, pairs: int = 2) -> None:
        super().__init__()
        half = k // 2
        self.enter = _conv(c, k, 1)
        self.pairs = nn.ModuleList(nn.Sequential(_conv(half, half, 3), _conv(half, half, 3)) for _ in range(pairs))
        self.leave = _conv((2 + pairs) * half, k, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for pair in self.pairs:
            parts.append(parts[-1] + pair(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class _PoolPyramid(nn.Module):
    """SPPF: maxima over 5, 9 and 13 pixels, as three 5x5 poolings in a row."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.enter, self.leave = _conv(c, c // 2, 1), _conv(2 * c, c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.enter(x)]
        for _ in range(3):
            levels.append(F.max_pool2d(levels[-1], 5, 1, 2))
        return self.leave(torch.cat(levels, 1))


def _conv(c: int, k: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c, k, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(k), nn.SiLU(inplace=True)
    )


def _double(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, like.shape[-2:])
