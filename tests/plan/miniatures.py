"""Networks of the shapes that people run, in small."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from networks import Case, ChannelsLast, set_norms, shuffled
from torch import nn


class PyramidUnit(nn.Module):
    """ESPNet's unit: reduce, dilated branches summed one after the other, concat, residual, norm, PReLU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        narrow = c // 5
        self.reduce = nn.Conv2d(c, narrow, 1, bias=False)
        self.first = nn.Conv2d(narrow, c - 4 * narrow, 3, padding=1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, narrow, 3, padding=d, dilation=d, bias=False) for d in (2, 4, 8, 16)
        )
        self.norm, self.act = nn.BatchNorm2d(c), nn.PReLU(c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.reduce(x)
        sums = [self.branches[0](reduced)]
        for branch in self.branches[1:]:
            sums.append(sums[-1] + branch(reduced))
        return self.act(self.norm(x + torch.cat([self.first(reduced), *sums], 1)))


class TinyPyramid(nn.Module):
    """ESPNet in small: a pyramid unit between strided convolutions, image re-read, transposed 2x2 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 9, 3, 2, 1, bias=False), nn.BatchNorm2d(9), nn.PReLU(9))
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.join = nn.Sequential(nn.BatchNorm2d(12), nn.PReLU(12))
        self.down = nn.Conv2d(12, 22, 3, 2, 1, bias=False)
        self.units = nn.Sequential(PyramidUnit(22), PyramidUnit(22))
        self.up = nn.Sequential(nn.ConvTranspose2d(22, 5, 2, 2, bias=False), nn.BatchNorm2d(5), nn.PReLU(5))
        self.head = nn.Sequential(nn.Conv2d(14, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.PReLU(5))
        self.classify = nn.ConvTranspose2d(5, 5, 2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.stem(x)
        deep = self.units(self.down(self.join(torch.cat([half, self.pool(x)], 1))))
        return self.classify(self.head(torch.cat([self.up(deep), half], 1)))


class TinySwift(nn.Module):
    """SwiftNet in small: residual units, a pyramid of averages, norm-ReLU-conv units, bilinear upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.BatchNorm2d(12),
        )
        self.skip = nn.Sequential(nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12))
        self.level = nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 1, bias=False))
        self.fuse = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 12, 1, bias=False))
        self.lateral = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 1, bias=False))
        self.blend = nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 5, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.stem(x)
        deep = F.relu(self.body(half) + self.skip(half))
        levels = [deep]
        for size in ((2, 3), (1, 2)):
            level = self.level(F.adaptive_avg_pool2d(deep, size))
            levels.append(F.interpolate(level, deep.shape[-2:], mode="bilinear", align_corners=False))
        deep = self.fuse(torch.cat(levels, 1))
        up = F.interpolate(deep, half.shape[-2:], mode="bilinear", align_corners=False)
        return self.blend(up + self.lateral(half))


class TinyVDSR(nn.Module):
    """VDSR in small: 3x3 convolutions at full resolution, plus the input."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 12, 12, 12)
        layers = [
            layer
            for c, k in itertools.pairwise(widths)
            for layer in (nn.Conv2d(c, k, 3, padding=1, bias=False), nn.ReLU(inplace=True))
        ]
        self.body = nn.Sequential(*layers, nn.Conv2d(12, 1, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class TinyBottlenecks(nn.Module):
    """ResNet's bottlenecks, the last of stride 2, an inverted residual with a depthwise convolution, a late reader."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.bodies = nn.ModuleList([self._body(8, 4, 1, 1), self._body(8, 4, 1, 1), self._body(8, 12, 1, 12)])
        self.down, self.reduced = self._body(8, 4, 2, 1, 16), nn.Conv2d(8, 16, 1, 2)
        self.pool, self.tap, self.head = nn.MaxPool2d(2), nn.Conv2d(8, 16, 1, 4), nn.Conv2d(16, 5, 1)

    @staticmethod
    def _body(c: int, width: int, stride: int, groups: int, out: int = 0) -> nn.Sequential:
        out = out or c
        return nn.Sequential(
            *(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()),
            *(nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(width), nn.ReLU6()),
            *(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = [self.stem(x)]
        for body in self.bodies:
            sums.append(F.relu(sums[-1] + body(sums[-1])))
        x = self.pool(F.relu(self.down(sums[-1]) + self.reduced(sums[-1])))
        return self.head(x + self.tap(sums[1]))


class TinyContext(nn.Module):
    """DeepLab in small, with group norms: the mean of the frame through a convolution, back to the size, and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.GroupNorm(2, 8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.InstanceNorm2d(12, affine=True), nn.PReLU(12))
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.peak = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Conv2d(12, 2, 1))
        self.head = nn.Sequential(nn.Conv2d(20, 5, 3, padding=1), nn.GroupNorm(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.body(self.stem(x))
        means = F.interpolate(self.context(deep), deep.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(torch.cat([deep, means, F.interpolate(self.peak(deep), deep.shape[-2:])], 1))


class TinyShuffle(nn.Module):
    """ShuffleNet's unit in small, between pixels that become channels and channels that become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1))
        self.up = nn.Sequential(nn.ChannelShuffle(3), nn.Conv2d(12, 20, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = self.down(x).chunk(2, 1)
        return self.up(shuffled(torch.cat([kept, self.branch(changed)], 1), 2))


class TinyNext(nn.Module):
    """ConvNeXt in small: layer norms and linear layers with the channels last, scaled; a softmax, and unit features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 2, 2), ChannelsLast(nn.LayerNorm(20, 1e-6)))
        self.depthwise = nn.Conv2d(20, 20, 7, padding=3, groups=20)
        self.mlp = ChannelsLast(nn.LayerNorm(20, 1e-6), nn.Linear(20, 40), nn.GELU(), nn.Linear(40, 20))
        self.scale = nn.Parameter(torch.rand(20, 1, 1))
        self.down = nn.Sequential(ChannelsLast(nn.LayerNorm(20, 1e-6)), nn.Conv2d(20, 24, 2, 2))
        self.classify = nn.Sequential(nn.Conv2d(24, 5, 1), nn.Softmax(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.down(x + self.scale * self.mlp(self.depthwise(x)))
        return torch.cat([self.classify(x), F.normalize(x, dim=1)], 1)


class TinyBranches(nn.Module):
    """Branches of a 3x3 and pointwise convolutions, each of which adds what the one before it made."""

    def __init__(self) -> None:
        super().__init__()
        self.halos = nn.ModuleList(nn.Conv2d(3, 8, 3, padding=1) for _ in range(3))
        self.first, self.second, self.third = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1)
        self.wider, self.wide, self.head = nn.Conv2d(8, 20, 1), nn.Conv2d(20, 16, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = F.relu(self.first(self.halos[0](x)))
        second = self.wide(F.relu(self.wider(F.relu(first + self.second(self.halos[1](x))))))
        return self.head(F.relu(second + self.third(self.halos[2](x))))


class TinyResponse(nn.Module):
    """ConvNeXt V2 in small: global response normalization, by which channels compete for the whole frame."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 12, 2, 2), nn.Conv2d(12, 12, 7, padding=3, groups=12)
        self.wide, self.narrow = nn.Conv2d(12, 24, 1), nn.Conv2d(24, 12, 1)
        self.weight, self.bias = nn.Parameter(torch.randn(1, 24, 1, 1)), nn.Parameter(torch.randn(1, 24, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.gelu(self.wide(self.depthwise(x)))
        norm = y.norm(p=2, dim=(2, 3), keepdim=True)
        share = norm / (norm.mean(dim=1, keepdim=True) + 1e-6)
        return x + self.narrow(y + torch.addcmul(self.bias, self.weight, y * share))


class TinyDetector(nn.Module):
    """YOLO in small: a stage that keeps every step, stacked pools, attention between pixels, and at two scales boxes
    as distributions over distances from anchors, which the first frame of a size makes.
    """

    size = None

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU(inplace=True))
        self.step, self.merge, self.down = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(24, 16, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.pool, self.reduce, self.qkv = nn.MaxPool2d(5, 1, 2), nn.Conv2d(48, 16, 1), nn.Conv2d(16, 32, 1)
        self.boxes = nn.ModuleList(nn.Conv2d(16, 32, 1) for _ in range(2))
        self.distances = nn.Conv2d(8, 1, 1, bias=False)
        self.strides = torch.tensor([2.0, 4.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, step = self.stem(x).chunk(2, 1)
        fine = self.merge(torch.cat([kept, step, self.step(step)], 1))
        coarse = self.down(fine)
        coarse = self.attend(self.reduce(torch.cat([coarse, self.pool(coarse), self.pool(self.pool(coarse))], 1)))
        maps = [fine + F.interpolate(coarse, scale_factor=2.0), coarse]
        boxes = torch.cat([head(y).view(1, 32, -1) for head, y in zip(self.boxes, maps, strict=True)], 2)
        spread = boxes.view(1, 4, 8, -1).transpose(2, 1).softmax(1)
        if self.size != fine.shape:
            self.size, self.anchors, self.scale = fine.shape, *self.make_anchors(maps)
        return (self.distances(spread).view(1, 4, -1) + self.anchors) * self.scale

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(1, 2, 16, -1).split([4, 4, 8], 2)
        scores = (q.transpose(-2, -1) @ k * 0.5).softmax(-1)
        return x + (v @ scores.transpose(-2, -1)).view(x.shape)

    def make_anchors(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        places, scales = [], []
        for i, y in enumerate(maps):
            rows, columns = (torch.arange(side).type_as(y) + 0.5 for side in y.shape[2:])
            places.append(torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1))
            scales.append(y.new_full((1, places[-1].shape[1]), self.strides[i]))
        return torch.cat(places, 1).repeat(2, 1), torch.cat(scales, 1)


MINIATURES = {
    "detector": (TinyDetector, (3, 36, 44)),
    "response": (TinyResponse, (3, 36, 44)),
    "branches": (TinyBranches, (3, 36, 44)),
    "bottlenecks": (TinyBottlenecks, (3, 36, 44)),
    "pyramid": (TinyPyramid, (3, 36, 44)),
    "swift": (TinySwift, (3, 37, 50)),
    "vdsr": (TinyVDSR, (1, 33, 47)),
    "context": (TinyContext, (3, 37, 50)),
    "shuffle": (TinyShuffle, (3, 36, 44)),
    "next": (TinyNext, (3, 36, 44)),
}


def miniature(name: str, block: int = 16) -> Case:
    torch.manual_seed(0)
    make, frame = MINIATURES[name]
    return Case(set_norms(make()), frame, block)
