"""Statistics of whole maps are made of cells, one set for all that ask for the same; everything else is left alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from error_bound import assert_within, depth_tolerance
from networks import set_norms
from torch import nn

from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import Graph
from sparseblock.plan.passes.keep_statistics import DENSE_CELL, keep_statistics
from sparseblock.plan.reference import Reference
from sparseblock.plan.trace import trace

GRID = BlockGrid(24, 40, 8)
FRAME = (1, 3, 24, 40)


class Net(nn.Module):
    def __init__(self, forward) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def passed(forward) -> tuple[Graph, Graph]:
    """The graph before and after; both compute the same."""
    torch.manual_seed(0)
    frame = torch.randn(FRAME)
    before, _ = trace(set_norms(Net(forward)), frame)
    with torch.no_grad():
        after = keep_statistics(before, GRID)
    everything, reference = torch.ones(GRID.rows, GRID.cols, dtype=torch.bool), Reference(before, GRID)
    for a, b in zip(reference(frame, everything), Reference(after, GRID)(frame, everything), strict=True):
        assert_within(b, a, depth_tolerance(reference))
    return before, after


def cells(graph: Graph) -> list[tuple[str, tuple[int, ...]]]:
    return [(node.label, graph.values[node.output].shape) for node in graph.nodes if node.output.endswith("__cells")]


def test_a_mean_and_a_norm_read_cells_of_one_block():
    _, after = passed(lambda net, x: net.norm(y := net.a(x)) + y.mean((2, 3), keepdim=True))
    assert sorted(cells(after)) == [("block_moments", (1, 4, 3, 5)), ("block_moments", (1, 8, 3, 5))]


def test_who_asks_for_the_same_shares_it():
    _, after = passed(
        lambda net, x: (
            net.norm(y := net.a(x)),
            net.norm(y) * 2,
            F.adaptive_max_pool2d(y, 1),
            y.amax((2, 3), keepdim=True),
        )
    )
    assert [label for label, _ in cells(after)].count("block_moments") == 1


def test_a_map_without_blocks_has_cells_of_its_own():
    _, after = passed(lambda net, x: F.interpolate(net.a(x), (23, 37)).mean((2, 3), keepdim=True))
    assert cells(after) == [("block_moments", (1, 4, -(-23 // DENSE_CELL), -(-37 // DENSE_CELL)))]


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: F.avg_pool2d(net.a(x), 8),
        lambda net, x: F.adaptive_avg_pool2d(net.a(x), (3, 5)),
        lambda net, x: F.adaptive_avg_pool2d(net.a(x), (5, 7)),
        lambda net, x: net.a(x).mean(1, keepdim=True),
        lambda net, x: net.a(x).softmax(1),
    ],
)
def test_what_is_no_statistic_of_a_whole_map_is_left_alone(forward):
    before, after = passed(forward)
    assert after.nodes == before.nodes
