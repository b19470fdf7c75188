"""Lists of the pixels of maps, as detectors' heads make: read in place, and worked on block by block before."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from networks import Case
from test_random_networks import check, random_masks
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.compile import trace
from sparseblock.plan.ir import Graph
from sparseblock.plan.passes import run_passes
from sparseblock.plan.passes.concat_views import concat_views
from sparseblock.plan.passes.unlist import unlist

GRID = BlockGrid(24, 40, 8)


class Heads(nn.Module):
    """Maps of 8 channels at two strides, and what `forward` makes of them."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, 2, 1)
        self.other = nn.ModuleList([nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1, 2)])
        self.mean, self.biased = nn.Conv2d(4, 1, 1, bias=False), nn.Conv2d(4, 1, 1)
        self.run = forward

    def forward(self, x):
        return self.run(self, [self.fine(x), self.coarse(x)], x)


def listed(maps):
    return torch.cat([y.view(y.shape[0], y.shape[1], -1) for y in maps], 2)


def channels_last(maps):
    """As the heads of torchvision's detectors: two anchors of four numbers each."""
    pixels = [y.view(y.shape[0], 2, 4, *y.shape[2:]).permute(0, 3, 4, 1, 2).reshape(y.shape[0], -1, 4) for y in maps]
    return torch.cat(pixels, dim=1)


def means(x, sum_, bins=4, turned=lambda y: y.transpose(1, 2)):
    return sum_(turned(x.view(1, 8 // bins, bins, -1)).softmax(1)).view(1, 8 // bins, -1)


def both(net, maps, x):
    """YOLOv8's head: boxes and scores in one list."""
    boxes, scores = listed([torch.cat([y, o(x)], 1) for y, o in zip(maps, net.other, strict=True)]).split((8, 5), 1)
    return torch.cat([means(boxes, net.mean) * 2, scores.sigmoid()], 1)


def graph_of(forward) -> Graph:
    torch.manual_seed(0)
    return trace(Heads(forward).eval(), torch.randn(1, 3, GRID.height, GRID.width))[0]


MOVED = {
    "a list": (lambda net, maps, x: listed(maps), {"concat_of_views": 1}),
    "channels last": (lambda net, maps, x: channels_last(maps), {"concat_of_views": 1}),
    "of one map": (lambda net, maps, x: (listed(maps[:1]) * 2).sigmoid(), {"concat_of_views": 1}),
    "beside what is no view": (
        lambda net, maps, x: torch.cat([maps[0].flatten(2), maps[1].flatten(2).exp()], 2),
        {"concat_of_views": 1, "aten.flatten.using_ints": 1},
    ),
    "activated": (lambda net, maps, x: listed(maps).sigmoid(), {"conv2d+sigmoid": 2, "concat_of_views": 1}),
    "activated beside the list": (
        lambda net, maps, x: (y := listed(maps), y.sigmoid()),
        {"sigmoid": 2, "concat_of_views": 2},
    ),
    "parts": (lambda net, maps, x: listed(maps).split((3, 5), 1), {"slice": 4, "concat_of_views": 2}),
    "slices": (
        lambda net, maps, x: (y := listed(maps))[:, 2:6].relu() + y[:, -4:],
        {"slice": 4, "relu": 2, "concat_of_views": 2},
    ),
    "one of the parts": (lambda net, maps, x: listed(maps).chunk(3, 1)[1], {"slice": 2, "concat_of_views": 1}),
    "means": (
        lambda net, maps, x: means(listed(maps), net.mean),
        {"softmax": 4, "concat": 2, "slice": 4, "concat_of_views": 1},
    ),
    "parts of what torch made": (
        lambda net, maps, x: listed([torch.cat([y, y.cumsum(3)], 1) for y in maps]).split(8, 1)[1],
        {"aten.cumsum.default": 2, "slice": 2, "concat_of_views": 1},
    ),
    "both": (both, {"softmax": 4, "concat": 2, "slice": 4, "conv2d+sigmoid": 2, "concat_of_views": 2}),
}
# What torch does to lists where it is to stay there.
TAIL = {
    "of one map": {"aten.mul.Tensor", "aten.sigmoid.default"},
    "beside what is no view": {"aten.exp.default"},
    "slices": {"aten.add.Tensor"},
    "both": {"aten.mul.Tensor", "aten.cat.default"},
}
LEFT = {
    "permuted, not transposed": lambda net, maps, x: means(
        listed(maps), net.mean, bins=4, turned=lambda y: y.reshape(1, 4, 2, -1)
    ),
    "sums with a bias": lambda net, maps, x: means(listed(maps), net.biased),
    "pixels in part": lambda net, maps, x: listed(maps)[:, :, 5:].sigmoid(),
    "the first pixels": lambda net, maps, x: listed(maps)[:, :, :5].sigmoid(),
    "map by map": lambda net, maps, x: [y.sigmoid() for y in listed(maps).split([960, 240], 2)],
    "every second channel": lambda net, maps, x: listed(maps)[:, ::2].sigmoid(),
    "channels and others": lambda net, maps, x: (y := listed(maps))[:, :4] + y.sum(1, keepdim=True),
    "along the channels": lambda net, maps, x: torch.cat([maps[0].flatten(2), maps[0].flatten(2)], 1).sigmoid(),
}


@pytest.mark.parametrize("name", MOVED)
def test_is_done_on_maps(name):
    forward, expected = MOVED[name]
    with torch.no_grad():
        found = Counter(node.label for node in run_passes(graph_of(forward), GRID).nodes)
    assert {label: found[label] for label in expected} == expected
    assert {label for label in found if label.startswith("aten")} <= set(expected) | TAIL.get(name, set())


@pytest.mark.parametrize("forward", [*LEFT.values(), lambda net, maps, x: listed(maps)[:, 8:]])
def test_is_left_to_torch(forward):
    before = concat_views(graph_of(forward), GRID)
    assert unlist(before, GRID).nodes == before.nodes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*MOVED, *LEFT])
def test_is_what_the_contract_says(name, dtype):
    torch.manual_seed(0)
    forward = LEFT[name] if name in LEFT else MOVED[name][0]
    case = Case(Heads(forward).eval(), (3, GRID.height, GRID.width), GRID.block_size)
    check(case, 1, random_masks(case, 1, seed=0), deep=True, dtype=dtype)


def test_a_gate_is_not_lost():
    network = Heads(lambda net, maps, x: means(listed(maps), net.mean)).eval()
    with pytest.raises(SparseBlockError, match=r"^compile: gates has 'mean', which runs dense: "):
        sparseblock.compile(network, torch.rand(1, 3, GRID.height, GRID.width), block_size=8, gates=["mean"])
