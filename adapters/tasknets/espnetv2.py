"""ESPNetv2: segmentation from depthwise dilated pyramids, with a decoder that pools features at several scales.

"ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural Network", Mehta et al., CVPR 2019;
the decoder is that of EdgeNets: efficient pyramid pooling, and encoder features gated by their global average.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

BRANCHES = 4
REINFORCED = 3  # channels in which the image is fed back in
WIDTHS = (32, 128, 256, 512)  # after every halving of the frame, at scale 2
REPEATS = (3, 7)  # units after the first at stride 8 and at stride 16
REACH = (13, 11, 9, 7)  # largest kernel that a branch may stand for, by level
SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of the pyramid pooling
DECODER = (64, 48, 32)  # channels at strides 16, 8 and 4


class ESPNetv2(nn.Module):
    """Class logits at the frame's size: float32 [n, 3, h, w] to [n, classes, h, w].

    Args:
        classes: 20 of Pascal VOC and background.
    """

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.base_net = _Encoder()
        narrow = min(classes // 2, 16)
        _, deep = WIDTHS[-2:]
        self.bu_dec_l1 = _PyramidPool(deep, narrow, DECODER[0])
        self.bu_dec_l2 = _PyramidPool(DECODER[0], narrow, DECODER[1])
        self.bu_dec_l3 = _PyramidPool(DECODER[1], narrow, DECODER[2])
        self.bu_dec_l4 = _PyramidPool(DECODER[2], narrow, classes, last=True)
        self.merge_enc_dec_l2 = _Gate(WIDTHS[2], DECODER[0])
        self.merge_enc_dec_l3 = _Gate(WIDTHS[1], DECODER[1])
        self.merge_enc_dec_l4 = _Gate(WIDTHS[0], DECODER[2])
        self.bu_br_l2, self.bu_br_l3, self.bu_br_l4 = (
            nn.Sequential(nn.BatchNorm2d(width), nn.PReLU(width)) for width in DECODER
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half, quarter, eighth, deep = self.base_net(x)
        y = self.bu_dec_l1(deep)
        y = self.bu_dec_l2(self.bu_br_l2(self.merge_enc_dec_l2(eighth) + _resize(y, eighth)))
        y = self.bu_dec_l3(self.bu_br_l3(self.merge_enc_dec_l3(quarter) + _resize(y, quarter)))
        y = self.bu_dec_l4(self.bu_br_l4(self.merge_enc_dec_l4(half) + _resize(y, half)))
        return _resize(y, x)


class _Encoder(nn.Module):
    """Features at strides 2, 4, 8 and 16; every strided unit also sees the image."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.level1 = _stage(nn.Conv2d(3, first, 3, 2, 1, bias=False), first, act=True)
        self.level2_0 = _Downsampler(first, second, REACH[0])
        self.level3_0 = _Downsampler(second, third, REACH[1])
        self.level3 = nn.ModuleList(_Unit(third, third, 1, REACH[2]) for _ in range(REPEATS[0]))
        self.level4_0 = _Downsampler(third, fourth, REACH[2])
        self.level4 = nn.ModuleList(_Unit(fourth, fourth, 1, REACH[3]) for _ in range(REPEATS[1]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        half = self.level1(x)
        quarter = self.level2_0(half, x)
        eighth = self.level3_0(quarter, x)
        for unit in self.level3:
            eighth = unit(eighth)
        deep = self.level4_0(eighth, x)
        for unit in self.level4:
            deep = unit(deep)
        return half, quarter, eighth, deep


class _Unit(nn.Module):
    """EESP: grouped 1x1 reduction, dilated depthwise branches summed one after the other, grouped 1x1 expansion."""

    def __init__(self, c: int, k: int, stride: int, reach: int) -> None:
        super().__init__()
        narrow = k // BRANCHES
        self.proj_1x1 = _stage(nn.Conv2d(c, narrow, 1, groups=BRANCHES, bias=False), narrow, act=True)
        kernels = sorted(3 + 2 * i if 3 + 2 * i <= reach else 3 for i in range(BRANCHES))
        self.spp_dw = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv2d(narrow, narrow, 3, stride, d, d, groups=narrow, bias=False)))
            for d in ((kernel - 1) // 2 for kernel in kernels)
        )
        self.conv_1x1_exp = _stage(nn.Conv2d(k, k, 1, groups=BRANCHES, bias=False), k, act=False)
        self.br_after_cat = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(k), act=nn.PReLU(k)))
        self.module_act = nn.PReLU(k)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.proj_1x1(x)
        sums = [self.spp_dw[0](reduced)]
        for branch in self.spp_dw[1:]:
            sums.append(branch(reduced) + sums[-1])
        out = self.conv_1x1_exp(self.br_after_cat(torch.cat(sums, 1)))
        return out if self.stride > 1 else self.module_act(out + x)


class _Downsampler(nn.Module):
    """Average beside a strided unit, plus the image averaged to this size."""

    def __init__(self, c: int, k: int, reach: int) -> None:
        super().__init__()
        self.eesp = _Unit(c, k - c, 2, reach)
        self.inp_reinf = nn.Sequential(
            _stage(nn.Conv2d(3, REINFORCED, 3, padding=1, bias=False), REINFORCED, act=True),
            _stage(nn.Conv2d(REINFORCED, k, 1, bias=False), k, act=False),
        )
        self.act = nn.PReLU(k)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        average = _halve(x)
        while image.shape[2] > average.shape[2]:
            image = _halve(image)
        return self.act(torch.cat([average, self.eesp(x)], 1) + self.inp_reinf(image))


class _PyramidPool(nn.Module):
    """Depthwise convolutions at several scales of a narrow projection, shuffled and merged."""

    def __init__(self, c: int, narrow: int, k: int, last: bool = False) -> None:
        super().__init__()
        wide = narrow * len(SCALES)
        self.stages = nn.ModuleList(nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False) for _ in SCALES)
        self.projection_layer = _named("cbr", nn.Conv2d(c, narrow, 1, bias=False), nn.BatchNorm2d(narrow), narrow)
        self.merge_layer = nn.Sequential(
            _named("br", nn.BatchNorm2d(wide), wide),
            nn.ChannelShuffle(len(SCALES)),
            _named(
                "cbr",
                nn.Conv2d(wide, narrow, 3, padding=1, groups=narrow, bias=False),
                nn.BatchNorm2d(narrow),
                narrow,
            ),
            nn.Conv2d(narrow, k, 1, bias=last),
        )
        self.br = nn.Identity() if last else _named("br", nn.BatchNorm2d(k), k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.projection_layer(x)
        size = x.shape[-2:]
        levels = []
        for scale, stage in zip(SCALES, self.stages, strict=True):
            inner = [max(math.ceil(side * scale), 5) for side in size]
            if scale == 1:
                levels.append(stage(x))
            elif scale < 1:
                levels.append(_to(stage(F.adaptive_avg_pool2d(x, inner)), size))
            else:
                levels.append(F.adaptive_avg_pool2d(stage(_to(x, inner)), size))
        return self.br(self.merge_layer(torch.cat(levels, 1)))


class _Gate(nn.Module):
    """A grouped 3x3 convolution, times a sigmoid of the input's global average."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, k, 1, bias=False), nn.Sigmoid())
        groups = math.gcd(c, k)
        conv = nn.Conv2d(c, k, 3, padding=1, groups=groups, bias=False)
        self.expansion_layer = _named("cbr", conv, nn.BatchNorm2d(k), k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.expansion_layer(x) * self.wt_layer(x)


def _stage(conv: nn.Conv2d, k: int, act: bool) -> nn.Sequential:
    stage = OrderedDict(conv=conv, bn=nn.BatchNorm2d(k))
    return nn.Sequential(stage | {"act": nn.PReLU(k)} if act else stage)


def _named(name: str, *layers: nn.Module | int) -> nn.Sequential:
    """The layers, and a PReLU of as many channels as the last argument says, under one name."""
    *modules, k = layers
    return nn.Sequential(OrderedDict({name: nn.Sequential(*modules, nn.PReLU(k))}))


def _halve(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, 2, 1)


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return _to(x, like.shape[-2:])


def _to(x: torch.Tensor, size: list[int] | torch.Size) -> torch.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
