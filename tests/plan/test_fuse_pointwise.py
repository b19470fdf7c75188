"""What goes into the epilogue or the weights of a producer, and what must not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from error_bound import assert_within, depth_tolerance
from networks import Call, set_norms
from torch import nn

import sparseblock
from sparseblock.grid import BlockGrid
from sparseblock.plan.compile import trace
from sparseblock.plan.passes.drop_unused import drop_unused
from sparseblock.plan.passes.fuse_pointwise import fuse_pointwise
from sparseblock.plan.reference import Reference
from sparseblock.testing import assert_matches, tolerance

GRID = BlockGrid(12, 20, 4)


class Residual(nn.Module):
    """after(first(x) + second(x)), or the other way round."""

    def __init__(self, first: nn.Module, second: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.after = first, second, after

    def forward(self, x):
        return self.after(self.first(x) + self.second(x))


class Gate(Residual):
    """after(first(x) * second(x))."""

    def forward(self, x):
        return self.after(self.first(x) * self.second(x))


def conv(c=3, k=6):
    return nn.Conv2d(c, k, 3, padding=1)


FUSED = {
    "norm into weights": (nn.Sequential(conv(), nn.BatchNorm2d(6)), ["copy", "conv2d"]),
    "norm into grouped weights": (
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)),
        ["copy", "conv2d"],
    ),
    "norm into transposed weights": (
        nn.Sequential(nn.ConvTranspose2d(3, 6, 2, 2, groups=3), nn.BatchNorm2d(6)),
        ["copy", "conv_transpose2d"],
    ),
    "norm and activation": (nn.Sequential(conv(), nn.BatchNorm2d(6), nn.PReLU(6)), ["copy", "conv2d+prelu"]),
    "two norms": (
        nn.Sequential(conv(), nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.ReLU6()),
        ["copy", "conv2d+clamp(0, 6)"],
    ),
    "residual, norm, activation": (
        Residual(conv(), nn.Sequential(conv(), nn.ReLU()), nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())),
        ["copy", "conv2d+relu", "conv2d+add+affine+relu"],
    ),
    "frame's normalisation": (nn.Sequential(Call("", lambda x: (x - 0.5) / 0.25), nn.ReLU()), ["affine+relu"]),
    "product, norm, activation": (
        Gate(conv(), nn.Sequential(conv(), nn.Sigmoid()), nn.SiLU()),
        ["copy", "conv2d+sigmoid", "conv2d+mul+silu"],
    ),
    "gate of channels": (
        Gate(conv(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 6, 1), nn.Sigmoid()), nn.ReLU()),
        ["copy", "global_avg_pool2d", "conv2d+sigmoid", "conv2d+mul+relu"],
    ),
    "gate of pixels": (
        Gate(nn.Conv2d(3, 1, 1), conv(), nn.ReLU()),
        ["copy", "conv2d", "conv2d+mul+relu"],
    ),
    "lone norm and activation": (
        nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.LeakyReLU(0.2)),
        ["copy", "max_pool2d", "affine+prelu"],
    ),
}
BY_HAND = {
    "silu": lambda x: torch.sigmoid(x) * x,
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "hardswish ": lambda x: x * (F.hardtanh(x + 3, 0, 6) / 6),
    "hardsigmoid": lambda x: F.relu6(x + 3) * (1 / 6),
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
}
NOT_BY_HAND = {
    "another input": lambda x: torch.sigmoid(x + 1) * x,
    "another bound": lambda x: x * (x + 3).clamp(0, 5) / 6,
    "another shift": lambda x: x * F.relu6(x + 2) / 6,
    "another factor": lambda x: F.relu6(x + 3) / 5,
}
INFINITE = {
    "division by zero": lambda x: x / 0,
    "infinite scale": lambda x: x * float("inf"),
    "infinite shift": lambda x: x + float("-inf"),
    "after another map": lambda x: (x.relu() - 0.5) / 0,
}
LEFT = {
    "norm after activation": (nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(6)), ["copy", "conv2d+relu", "affine"]),
    "two activations": (nn.Sequential(conv(), nn.ReLU6(), nn.LeakyReLU(0.1)), ["copy", "conv2d+clamp(0, 6)", "prelu"]),
    "read by others too": (
        nn.Sequential(conv(), Call("", lambda x: (x.relu(), x.neg()))),
        ["copy", "conv2d", "relu", "affine"],
    ),
    "an output": (nn.Sequential(conv(), Call("", lambda x: (x, x.relu()))), ["copy", "conv2d", "relu"]),
    "added to itself": (nn.Sequential(conv(), Call("", lambda x: x + x)), ["copy", "conv2d", "add"]),
    "pooling has no epilogue": (nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), ["copy", "max_pool2d", "relu"]),
}


@pytest.mark.parametrize("name", [*FUSED, *LEFT])
def test_fuse(name):
    network, expected = (FUSED | LEFT)[name]
    torch.manual_seed(0)
    frame = torch.randn(1, 3, 12, 20)
    graph, _ = trace(set_norms(network), frame)
    with torch.no_grad():
        fused = fuse_pointwise(graph, GRID)
    assert [node.label for node in fused.nodes] == expected
    # The fused graph computes what the captured one does; they differ in the rounding of folded weights alone.
    everything = torch.ones(GRID.rows, GRID.cols, dtype=torch.bool)
    before, after = Reference(graph, GRID), Reference(fused, GRID)
    for a, b in zip(before(frame, everything), after(frame, everything), strict=True):
        assert_within(b, a, depth_tolerance(before))


def test_residual_goes_to_the_later_producer():
    graph, _ = trace(Residual(conv(), conv(), nn.Identity()).eval(), torch.randn(1, 3, 12, 20))
    fused = fuse_pointwise(graph, GRID)
    assert [(node.origin, node.label) for node in fused.nodes[1:]] == [("first", "conv2d"), ("second", "conv2d+add")]


def test_second_affine_map_composes():
    network = Residual(conv(), conv(), nn.Sequential(nn.BatchNorm2d(6), Call("", lambda x: x * 2 + 1)))
    frame = torch.randn(1, 3, 12, 20)
    graph, _ = trace(set_norms(network), frame)
    fused = fuse_pointwise(graph, GRID)
    assert fused.nodes[-1].label == "conv2d+add+affine"
    everything = torch.ones(GRID.rows, GRID.cols, dtype=torch.bool)
    before = Reference(graph, GRID)
    (a,), (b,) = before(frame, everything), Reference(fused, GRID)(frame, everything)
    assert_within(b, a, depth_tolerance(before))


@pytest.mark.parametrize("name", BY_HAND)
def test_activations_by_hand_are_one(name):
    graph, _ = trace(Call("", BY_HAND[name]).eval(), torch.randn(1, 3, 12, 20))
    labels = [node.label for node in fuse_pointwise(drop_unused(graph, GRID), GRID).nodes]
    assert labels == [name.strip()]


@pytest.mark.parametrize("name", NOT_BY_HAND)
def test_what_looks_like_one_is_not(name):
    network = Call("", NOT_BY_HAND[name]).eval()
    frame = torch.randn(1, 3, 12, 20)
    plan = sparseblock.compile(network, frame, 4)
    assert not {"silu", "hardswish", "hardsigmoid", "mish"} & {node.label.split("+")[-1] for node in plan.graph.nodes}
    assert_matches(plan(frame, None, plan.new_state()), network(frame), tolerance(8, frame, frame))


@pytest.mark.parametrize("name", INFINITE)
def test_infinite_maps_give_what_torch_gives(name):
    network = nn.Sequential(conv(), Call("", INFINITE[name])).eval()
    frame = torch.randn(1, 3, 12, 20)
    plan = sparseblock.compile(network, frame, 4)
    assert torch.equal(plan(frame, None, plan.new_state()), network(frame))
