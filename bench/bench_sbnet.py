"""SBNet's own benchmark (Ren et al., CVPR 2018): its shapes and its masks, a rectangle in the top left corner.

Each is a 3x3 convolution of K channels, and a pre-activation bottleneck of C. Here the list of blocks is made of the
mask within every call, which SBNet's figures leave out; a contender's time is that of the best of two block sizes.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparseblock
from bench.timing import measure, wall
from sparseblock import BlockSet, ops

SHAPES = {  # height, width, C, K of the four stages
    "resnet-50": ((400, 700, 256, 64), (200, 350, 512, 128), (100, 175, 1024, 256), (50, 88, 2048, 512)),
    "resnet-v2": ((400, 700, 96, 24), (200, 350, 192, 48), (100, 175, 256, 64), (50, 88, 384, 96)),
}
CASES = [(name, stage) for name in SHAPES for stage in range(4)]
DENSITIES = (1.0, 0.4, 0.2, 0.1, 0.01)  # SBNet: sparsity 0.6 to 0.99
BLOCKS = (8, 16)


class Bottleneck(nn.Module):
    """BN, ReLU, 1x1 to k; BN, ReLU, 3x3; BN, ReLU, 1x1 to c; and the input."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in (c, k, k))
        self.convs = nn.ModuleList((nn.Conv2d(c, k, 1), nn.Conv2d(k, k, 3, padding=1), nn.Conv2d(k, c, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(norm(y).relu())
        return x + y


def corner(height: int, width: int, block: int, density: float) -> torch.Tensor:
    """The blocks [1, rows, cols] that touch the rectangle of `density` of the map in its top left corner."""
    mask = torch.zeros(1, math.ceil(height / block), math.ceil(width / block), dtype=torch.bool)
    sides = (math.ceil(math.ceil(math.sqrt(density) * side) / block) for side in (height, width))
    mask[:, : next(sides), : next(sides)] = True
    return mask


@pytest.mark.parametrize("test", ["conv", "res"])
@pytest.mark.parametrize(("name", "stage"), CASES)
def test_sbnet(benchmark, name, stage, test):
    torch.manual_seed(0)
    torch.set_num_threads(2)
    height, width, c, k = SHAPES[name][stage]
    channels = k if test == "conv" else c
    x = torch.randn(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    contenders = {}
    if test == "conv":
        weight = torch.randn(k, k, 3, 3).contiguous(memory_format=torch.channels_last)
        out, macs = torch.empty_like(x), height * width * k * k * 9
        contenders["dense"] = wall(lambda: F.conv2d(x, weight, None, 1, 1))
    else:
        model = Bottleneck(c, k).eval()
        plans = {block: sparseblock.compile(model, x, block_size=block) for block in BLOCKS}
        states = {block: plan.new_state() for block, plan in plans.items()}
        macs = plans[BLOCKS[0]].macs
        model = model.to(memory_format=torch.channels_last)
        contenders["dense"] = wall(lambda: model(x))

    def sparse(density: float, block: int):
        mask = corner(height, width, block, density)
        if test == "conv":
            return lambda: ops.conv2d(x, weight, None, BlockSet.from_mask(mask, block), out, padding=1)
        plans[block](x, None, states[block])
        return lambda: plans[block](x, mask, states[block])

    for density in DENSITIES:
        for block in BLOCKS:
            contenders[f"{density:g} in blocks of {block}"] = wall(sparse(density, block))
    with torch.no_grad():
        seconds = measure(benchmark, contenders, rounds=15)
    best = {f"{d:g}": min(seconds[f"{d:g} in blocks of {block}"] for block in BLOCKS) for d in DENSITIES}
    benchmark.extra_info |= {
        "seconds": {"dense": seconds["dense"], **best},
        "row": f"{name} {height}x{width}, {test} {channels}",
        "threads": 2,
        "macs": macs,
        "baseline": "dense",
    }
