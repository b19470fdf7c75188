"""Concatenations: written in place by producers, split where a pointwise node follows, copied where nothing helps."""

from __future__ import annotations

import pytest
import torch
from error_bound import assert_within, depth_tolerance
from miniatures import miniature
from networks import set_norms
from torch import nn

from sparseblock.grid import BlockGrid
from sparseblock.plan.compile import trace
from sparseblock.plan.ir import Concat
from sparseblock.plan.passes import run_passes
from sparseblock.plan.passes.copy_concat import copy_concat
from sparseblock.plan.passes.drop_unused import drop_unused
from sparseblock.plan.passes.fuse_pointwise import fuse_pointwise
from sparseblock.plan.passes.join_slices import join_slices
from sparseblock.plan.passes.split_concat import split_concat
from sparseblock.plan.reference import Reference

GRID = BlockGrid(12, 20, 4)
FRAME = (1, 3, 12, 20)


class Net(nn.Module):
    def __init__(self, forward) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.c = nn.Conv2d(9, 2, 3, padding=1)
        self.norm, self.act = nn.BatchNorm2d(9), nn.PReLU(9)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def labels(forward, *passes) -> list[str]:
    """What the passes leave; and they leave what the network computes."""
    torch.manual_seed(0)
    frame = torch.randn(FRAME)
    graph, _ = trace(set_norms(Net(forward)), frame)
    before, everything = Reference(graph, GRID), torch.ones(GRID.rows, GRID.cols, dtype=torch.bool)
    with torch.no_grad():
        for transform in passes:
            graph = transform(graph, GRID)
    for a, b in zip(before(frame, everything), Reference(graph, GRID)(frame, everything), strict=True):
        assert_within(b, a, depth_tolerance(before))
    return [node.label for node in graph.nodes]


def test_producers_write_in_place():
    assert labels(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)), copy_concat) == [
        *("copy", "conv2d", "conv2d", "concat", "conv2d")
    ]


@pytest.mark.parametrize(
    ("forward", "copies"),
    [
        (lambda net, x: torch.cat([y := net.a(x), y], 1), 1),  # twice in one
        (lambda net, x: (torch.cat([y := net.a(x), net.b(x)], 1), torch.cat([net.b(x), y], 1)), 1),  # in two
        (lambda net, x: torch.cat([net.a(x)[:, :2], net.b(x)], 1), 1),  # lies in another plane already
        (lambda net, x: torch.cat([net.a(x).sin(), net.b(x)], 1), 1),  # made dense
    ],
)
def test_copies_where_nothing_helps(forward, copies):
    before, after = labels(forward), labels(forward, copy_concat)
    assert len(after) - len(before) == copies


def test_split_lets_producers_finish():
    """Both convolutions absorb norm and activation: nothing is left to do on the concatenation."""
    forward = lambda net, x: net.c(net.act(net.norm(torch.cat([net.a(x), net.b(x)], 1))))  # noqa: E731
    assert labels(forward, fuse_pointwise, split_concat) == ["copy", "conv2d+prelu", "conv2d+prelu", "concat", "conv2d"]


def test_split_reads_in_place_what_would_be_copied():
    """One input belongs to another concatenation: its part is read there instead of being copied first."""

    def forward(net, x):
        y = net.a(x)
        return net.c(torch.cat([net.b(x), y], 1)), net.c(net.act(net.norm(torch.cat([y, net.pool(net.b(x))], 1))))

    assert labels(forward, fuse_pointwise, split_concat).count("affine+prelu") == 2
    assert "copy" not in labels(forward, fuse_pointwise, split_concat, copy_concat)[1:]


@pytest.mark.parametrize(
    "forward",
    [
        # Pools take no epilogue but write in place: one pass over the whole is as good.
        lambda net, x: net.c(net.act(net.norm(torch.cat([net.pool(net.a(x)), net.pool(net.b(x))], 1)))),
        # Another reader wants the concatenation as it is.
        lambda net, x: (net.norm(y := torch.cat([net.a(x), net.b(x)], 1)), net.c(y)),
        # The concatenation is an output.
        lambda net, x: (net.norm(y := torch.cat([net.a(x), net.b(x)], 1)), y),
    ],
)
def test_split_leaves_alone(forward):
    assert labels(forward, fuse_pointwise) == labels(forward, fuse_pointwise, split_concat)


@pytest.mark.parametrize(
    ("forward", "slices", "copies"),
    [
        (lambda net, x: torch.cat([*(y := net.b(x).chunk(2, 1)), net.pool(y[1])], 1), 1, 0),  # the whole value
        (lambda net, x: torch.cat([net.pool(x), *net.b(x)[:, 1:].split(2, 1)], 1), 1, 1),  # all but one channel
        (lambda net, x: torch.cat([*net.b(x).split([2, 1, 2], 1)[:2], net.pool(x)], 1), 1, 1),  # the first three
        (lambda net, x: torch.cat([*net.b(x).split([2, 3], 1)[::-1], net.pool(x)], 1), 2, 2),  # in another order
        (lambda net, x: torch.cat([(y := net.b(x).split([2, 3], 1))[0], net.pool(x), y[1]], 1), 2, 2),  # apart
        (lambda net, x: torch.cat([net.b(x)[:, :2], net.a(x)[:, 2:]], 1), 2, 2),  # of two values
    ],
)
def test_slices_side_by_side_are_one(forward, slices, copies):
    after = labels(forward, join_slices, copy_concat)
    assert (after.count("slice"), after.count("copy") - 1) == (slices, copies)


def test_pyramid_unit_needs_no_copy():
    """The unit of ESPNet: every sum is made by the convolution before it and read from its slice by the next."""
    case = miniature("pyramid")
    graph, _ = trace(case.network, case.frames())
    grid = BlockGrid(*case.frame[1:], case.block)
    with torch.no_grad():
        nodes = run_passes(graph, grid).nodes
    assert [node.label for node in nodes].count("copy") == 1  # the frame
    assert not any(node.label == "add" for node in nodes)
    assert sum(node.label == "conv2d+add" for node in nodes) == 6  # three later sums in each of two units


def test_drop_unused():
    graph, _ = trace(
        Net(lambda net, x: (net.a(x), net.b(x), torch.cat([net.a(x), net.b(x)], 1))[1]).eval(), torch.randn(FRAME)
    )
    assert [node.label for node in drop_unused(graph, GRID).nodes] == ["copy", "conv2d"]
    assert not any(isinstance(node.op, Concat) for node in drop_unused(graph, GRID).nodes)


def test_drop_unused_keeps_every_output():
    graph, _ = trace(Net(lambda net, x: (net.a(x), net.b(x))).eval(), torch.randn(FRAME))
    assert drop_unused(graph, GRID).nodes == graph.nodes
