"""ESPNet: segmentation from efficient spatial pyramids, that is, a 1x1 reduction and five dilated 3x3 branches.

"ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation", Mehta et al., ECCV 2018.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from sparseblock import SparseBlockError

STRIDE = 8


class ESPNet(nn.Module):
    """Class logits at the frame's size: float32 [n, 3, h, w] to [n, classes, h, w]; h and w are multiples of 8.

    Args:
        classes: 19 of Cityscapes and void.
        p, q: pyramids at stride 4 and at stride 8 (the paper's alpha_2 and alpha_3).

    Raises:
        SparseBlockError: the frame is no multiple of 8 (`TaskNetwork.preprocess` pads it).
    """

    def __init__(self, classes: int = 20, p: int = 2, q: int = 8) -> None:
        super().__init__()
        self.encoder = _Encoder(classes, p, q)
        self.level3_C = _stage(conv=_conv(131, classes, 1))
        self.br = _norm(classes)
        self.conv = _stage(conv=_conv(classes + 16, classes, 3), bn=_norm(classes), act=nn.PReLU(classes))
        self.up_l3 = nn.Sequential(_double(classes, classes))
        self.combine_l2_l3 = nn.Sequential(
            _stage(bn=_norm(2 * classes), act=nn.PReLU(2 * classes)), _Pyramid(2 * classes, classes, residual=False)
        )
        self.up_l2 = nn.Sequential(_double(classes, classes), _stage(bn=_norm(classes), act=nn.PReLU(classes)))
        self.classifier = _double(classes, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise SparseBlockError(
                f"espnet: frame of {height}x{width}; height and width must be multiples of {STRIDE}; "
                "pad it, as TaskNetwork.preprocess does"
            )
        half, quarter, eighth = self.encoder(x)
        eighth = self.up_l3(self.br(eighth))
        quarter = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(quarter), eighth], 1)))
        return self.classifier(self.conv(torch.cat([quarter, half], 1)))


class _Encoder(nn.Module):
    """16 channels at stride 2, 131 at stride 4, class scores at stride 8."""

    def __init__(self, classes: int, p: int, q: int) -> None:
        super().__init__()
        self.level1 = _stage(conv=_conv(3, 16, 3, stride=2), bn=_norm(16), act=nn.PReLU(16))
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.b1 = _stage(bn=_norm(19), act=nn.PReLU(19))
        self.level2_0 = _DownSampler(19, 64)
        self.level2 = nn.Sequential(*(_Pyramid(64, 64) for _ in range(p)))
        self.b2 = _stage(bn=_norm(131), act=nn.PReLU(131))
        self.level3_0 = _DownSampler(131, 128)
        self.level3 = nn.Sequential(*(_Pyramid(128, 128) for _ in range(q)))
        self.b3 = _stage(bn=_norm(256), act=nn.PReLU(256))
        self.classifier = _stage(conv=_conv(256, classes, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image2 = self.pool(x)
        image4 = self.pool(image2)
        half = self.level1(x)
        first = self.level2_0(self.b1(torch.cat([half, image2], 1)))
        quarter = self.b2(torch.cat([self.level2(first), first, image4], 1))
        first = self.level3_0(quarter)
        eighth = self.b3(torch.cat([first, self.level3(first)], 1))
        return half, quarter, self.classifier(eighth)


class _Branches(nn.Module):
    """Reduce, five dilated 3x3 convolutions, hierarchical fusion (each branch adds to the next), concat."""

    def __init__(self, c: int, k: int, kernel: int, stride: int) -> None:
        super().__init__()
        narrow = k // 5
        self.c1 = _stage(conv=_conv(c, narrow, kernel, stride=stride))
        # The branch without dilation takes what the division by five leaves over.
        self.d1 = _stage(conv=_conv(narrow, k - 4 * narrow, 3))
        self.d2, self.d4, self.d8, self.d16 = (_stage(conv=_conv(narrow, narrow, 3, dilation=d)) for d in (2, 4, 8, 16))

    def branches(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c1(x)
        sum2 = self.d2(x)
        sum4 = sum2 + self.d4(x)
        sum8 = sum4 + self.d8(x)
        sum16 = sum8 + self.d16(x)
        return torch.cat([self.d1(x), sum2, sum4, sum8, sum16], 1)


class _DownSampler(_Branches):
    def __init__(self, c: int, k: int) -> None:
        super().__init__(c, k, kernel=3, stride=2)
        self.bn = _norm(k)
        self.act = nn.PReLU(k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.branches(x)))


class _Pyramid(_Branches):
    def __init__(self, c: int, k: int, residual: bool = True) -> None:
        super().__init__(c, k, kernel=1, stride=1)
        self.residual = residual
        self.bn = _stage(bn=_norm(k), act=nn.PReLU(k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.branches(x)
        return self.bn(x + out if self.residual else out)


def _stage(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _conv(c: int, k: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c, k, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation, bias=False)


def _double(c: int, k: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(c, k, 2, stride=2, bias=False)


def _norm(c: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(c, eps=1e-3)
