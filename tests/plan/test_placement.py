"""Strides, blocks, reasons, and who reads outside of its block."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from networks import Call
from torch import nn

import sparseblock
from sparseblock.grid import BlockGrid
from sparseblock.plan.compile import trace
from sparseblock.plan.passes.fuse_pointwise import fuse_pointwise
from sparseblock.plan.placement import place, reads_within_block


def traced(network: nn.Module, height: int, width: int):
    return trace(network.eval(), torch.randn(1, 3, height, width))[0]


def last_stride(network: nn.Module, height: int, width: int) -> Fraction | None:
    graph = traced(network, height, width)
    return graph.values[graph.nodes[-1].output].stride


DOWN = nn.Conv2d(3, 3, 3, stride=2, padding=1)


@pytest.mark.parametrize(
    ("network", "size", "stride"),
    [
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (33, 47), 2),
        (nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)), (33, 47), 4),
        (nn.ConvTranspose2d(3, 4, 2, stride=2), (32, 48), Fraction(1, 2)),
        (nn.Sequential(DOWN, nn.ConvTranspose2d(3, 4, 2, stride=2)), (33, 47), 1),
        (nn.Conv2d(3, 4, 3, stride=(2, 1), padding=1), (32, 48), None),
        (nn.Upsample(scale_factor=2), (32, 48), Fraction(1, 2)),
        # From 17x24 to the frame's own 33x47: no whole ratio, but a map of that size is known.
        (nn.Sequential(DOWN, Call("", lambda x: F.interpolate(x, (33, 47)))), (33, 47), 1),
        # Pooled to a grid of its own, and back to the size of a map whose stride is known.
        (
            nn.Sequential(DOWN, Call("", lambda x: F.interpolate(F.adaptive_avg_pool2d(x, (3, 5)), x.shape[2:]))),
            (33, 47),
            2,
        ),
        (nn.Sequential(DOWN, nn.Sigmoid(), nn.Conv2d(3, 3, 1)), (33, 47), 2),
        (nn.AdaptiveAvgPool2d((4, 6)), (32, 48), 8),
        # Sides as of windows with a stride of 8, but ten pixels lie between its rows: the last rows would be in none.
        (nn.Sequential(DOWN, nn.AdaptiveAvgPool2d((3, 5))), (61, 83), None),
        (nn.Sequential(DOWN, nn.AdaptiveAvgPool2d((16, 21))), (61, 83), 4),
        (nn.Sequential(DOWN, Call("", lambda x: F.interpolate(x, (3, 5), mode="bilinear"))), (61, 83), None),
    ],
)
def test_stride(network, size, stride):
    assert last_stride(network, *size) == stride


def test_reasons():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=3)
    )
    plan = sparseblock.compile(network.eval(), torch.randn(1, 3, 30, 40), block_size=4)
    nodes = plan.report().nodes
    assert [node.placement for node in nodes] == ["sparse", "sparse", "sparse", "dense", "dense"]
    assert [node.reason for node in nodes[:4]] == ["", "", "", "block of 4 px is no multiple of the stride 8"]


def test_a_map_that_outgrows_the_grid_runs_dense():
    plan = sparseblock.compile(nn.Conv2d(3, 4, 1, padding=8).eval(), torch.randn(1, 3, 32, 32), block_size=16)
    assert plan.report().nodes[-1].reason == "2x2 blocks of 16 px do not cover a map of 48x48 at stride 1"


def test_blocks_below_a_pixel_of_the_frame():
    """A map larger than the frame has larger blocks."""
    graph = traced(nn.ConvTranspose2d(3, 4, 2, stride=2), 32, 48)
    assert place(graph, BlockGrid(32, 48, 8))[graph.nodes[-1].output].block == 16


def folded(network: nn.Module, height: int = 32, width: int = 48) -> list[str]:
    plan = sparseblock.compile(network.eval(), torch.randn(1, 3, height, width), block_size=16)
    return [node.label for node in plan.graph.nodes]


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2)),
        nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=1)),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 4, 4, padding="same"),
    ],
)
def test_padding_becomes_part_of_the_convolution(network):
    assert folded(network) == ["copy", "conv2d"]


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), nn.MaxPool2d(3, 2, 1)),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)),
    ],
)
def test_padding_becomes_part_of_the_maximum(network):
    assert folded(network) == ["copy", "max_pool2d"]


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 4, 3)),
        nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3, padding=1)),
        nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")),
        nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2, 1)),
        nn.Sequential(nn.ReflectionPad2d(1), nn.MaxPool2d(3, 2)),
        nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2, 1)),
        nn.Sequential(nn.ZeroPad2d(-1), nn.Conv2d(3, 4, 3, padding=1)),
    ],
)
def test_padding_that_no_kernel_has_is_left_alone(network):
    assert "pad" in folded(network)


def test_padding_stays_for_who_needs_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            x = F.pad(x, (1, 1, 1, 1))
            return self.conv(x), x

    assert folded(Net(), 30, 46) == ["copy", "pad", "conv2d"]


WITHIN = [
    nn.Conv2d(3, 4, 1),
    nn.Conv2d(3, 4, 1, stride=2),
    nn.Conv2d(3, 4, 2, stride=2),
    nn.ConvTranspose2d(3, 4, 2, stride=2),
    nn.MaxPool2d(2),
    nn.ReLU(),
    nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=4),
]
BEYOND = [
    nn.Conv2d(3, 4, 3, padding=1),
    nn.Conv2d(3, 4, 3),
    nn.Conv2d(3, 4, 3, stride=2),
    nn.Conv2d(3, 4, 2, stride=2, padding=1),
    nn.Conv2d(3, 4, 2, stride=2, dilation=2),
    nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1),
    nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1),
    nn.ConvTranspose2d(3, 4, 2, stride=2, padding=1),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 2),
    nn.AvgPool2d(2, stride=1),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.Upsample(scale_factor=3),
    Call("x4.01, which rounds to four times the size", lambda x: F.interpolate(x, scale_factor=4.01)),
    nn.Upsample(size=(31, 47)),
]


@pytest.mark.parametrize("network", [*WITHIN, *BEYOND], ids=repr)
def test_reads_within_block(network):
    """By the rule, and by poison: what a block's value does not depend on may be NaN."""
    graph = traced(network, 32, 48)
    node = graph.nodes[-1]
    grid = BlockGrid(32, 48, 8)
    says = reads_within_block(node, node.inputs[0], graph, grid)
    assert says == (network in WITHIN)
    block = place(graph, grid)[node.output].block
    if says:
        x = torch.full((1, 3, 32, 48), float("nan"))
        x[:, :, 8:16, 16:24] = torch.randn(1, 3, 8, 8)
        out = network(x)[:, :, block : 2 * block, 2 * block : 3 * block]
        assert out.numel() and not out.isnan().any()


def test_residual_is_read_within_block_and_x_is_not():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.a(x) + self.b(x)

    grid = BlockGrid(32, 48, 8)
    graph = fuse_pointwise(traced(Net(), 32, 48), grid)
    node = graph.nodes[-1]
    assert reads_within_block(node, node.residual, graph, grid)
    assert not reads_within_block(node, node.inputs[0], graph, grid)
