"""Plans of modules that read several maps: in lists and dicts, on one grid, by the stride of each."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from error_bound import assert_within, depth_tolerance
from networks import set_norms
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan.compile import trace
from sparseblock.plan.reference import Reference
from sparseblock.plan.strides import stride_by_size
from sparseblock.testing import assert_identical

SIZES = ((45, 70), (23, 35), (12, 18))  # a pyramid: strides 1, 2, 4, rounded up


class Head(nn.Module):
    """One convolution on every level, and a sum over levels at the size of the finest."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, levels):
        maps = [self.shared(x) for x in (levels.values() if isinstance(levels, dict) else levels)]
        finest = maps[0]
        for coarse in maps[1:]:
            finest = finest + F.interpolate(coarse, finest.shape[-2:])
        return {"maps": maps, "sum": finest}


def levels(container=list):
    maps = [torch.randn(1, 4, *size) for size in SIZES]
    return dict(zip(("p2", "p3", "p4"), maps, strict=True)) if container is dict else container(maps)


@pytest.mark.parametrize("container", [list, tuple, dict])
def test_several_maps(container):
    torch.manual_seed(0)
    network, frame = set_norms(Head()), levels(container)
    plan = sparseblock.compile(network, frame, block_size=16)
    assert (plan.grid.rows, plan.grid.cols) == (3, 5) and plan.dense_macs == 0
    assert {node.placement for node in plan.report().nodes} == {"sparse"}
    state = plan.new_state()
    out = plan(frame, None, state)
    expected = network(frame)
    reference = Reference(trace(network, frame)[0], plan.grid)
    reference(frame, torch.ones(3, 5, dtype=torch.bool))
    assert pytree.tree_structure(out) == pytree.tree_structure(expected)
    for got, want in zip(pytree.tree_leaves(out), pytree.tree_leaves(expected), strict=True):
        assert_within(got, want, depth_tolerance(reference))
    before = pytree.tree_map(torch.clone, out)
    mask = torch.zeros(1, 3, 5, dtype=torch.bool)
    mask[0, 1, 2] = True
    frame = levels(container)
    wanted = reference(frame, mask[0])
    for got, old, want in zip(
        pytree.tree_leaves(plan(frame, mask, state)), pytree.tree_leaves(before), wanted, strict=True
    ):
        size = {45: 16, 23: 8, 12: 4}[got.shape[2]]
        active = torch.zeros_like(got, dtype=torch.bool)
        active[:, :, size : 2 * size, 2 * size : 3 * size] = True
        assert_identical(got, old, ~active)
        assert_within(got, want, depth_tolerance(reference))


def test_streams_of_several_maps():
    network = set_norms(Head())
    plan = sparseblock.compile(network, levels(), block_size=16)
    two = [torch.cat([a, b]) for a, b in zip(levels(), levels(), strict=True)]
    together = plan(two, None, plan.new_state(2))["sum"]
    alone = plan([x[1:] for x in two], None, plan.new_state())["sum"]
    assert_identical(together[1:], alone)


@pytest.mark.parametrize(
    ("size", "stride"),
    [((45, 70), 1), ((23, 35), 2), ((22, 35), 2), ((90, 140), Fraction(1, 2)), ((23, 36), None), ((1, 1), None)],
)
def test_strides_follow_from_sizes(size, stride):
    assert stride_by_size((45, 70), size) == stride


def test_an_input_without_a_stride_is_copied_whole():
    network = nn.Module()
    network.forward = lambda maps: (maps[0] * 2, maps[1] + 1)
    frame = (torch.randn(1, 2, 16, 16), torch.randn(1, 2, 7, 11))
    plan = sparseblock.compile(network.eval(), frame, block_size=8)
    report = {node.name: node for node in plan.report().nodes}
    assert [node.placement for node in report.values()].count("dense") >= 1
    state = plan.new_state()
    plan(frame, None, state)
    frame = tuple(torch.randn_like(x) for x in frame)
    _, whole = plan(frame, torch.zeros(1, 2, 2, dtype=torch.bool) | (torch.arange(2) > 0), state)
    assert torch.equal(whole, frame[1] + 1)


def test_refuses_maps_that_do_not_fit():
    plan = sparseblock.compile(set_norms(Head()), levels(), block_size=16)
    state = plan.new_state()
    message = (
        "plan: the arguments are (tensor, tensor, tensor); they must be structured as when it was compiled: "
        "[tensor, tensor, tensor]"
    )
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        plan(levels(tuple), None, state)
    named = sparseblock.compile(set_norms(Head()), levels(dict), block_size=16)
    for frame, given in (
        ({"p2": levels()[0]}, "{'p2': tensor}"),
        (levels(dict) | {"size": 3}, "{'p2': tensor, 'p3': tensor, 'p4': tensor, 'size': int}"),
    ):
        message = (
            f"plan: the arguments are {given}; they must be structured as when it was compiled: "
            "{'p2': tensor, 'p3': tensor, 'p4': tensor}"
        )
        with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
            named(frame, None, named.new_state())
    wrong = levels()
    wrong[1] = wrong[1][..., :-1]
    with pytest.raises(SparseBlockError, match=r"plan: levels_1 is \[1, 4, 23, 34\]; this plan and state take"):
        plan(wrong, None, state)
    message = "compile: example_frame is torch.float64 [1, 4, 45, 70] on cpu; it must be a float32 frame"
    with pytest.raises(SparseBlockError, match=re.escape(message)):
        sparseblock.compile(set_norms(Head()), [x.double() for x in levels()])
    with pytest.raises(SparseBlockError, match="example_frame is a container without a tensor; it must be a tensor"):
        sparseblock.compile(set_norms(Head()), [])
