"""Plans of random networks: all blocks active is the dense network, any mask what the contract says node by node."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from error_bound import ErrorBound, assert_within, depth_tolerance
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import MINIATURES, miniature
from networks import Case, cases
from torch.utils import _pytree as pytree

from sparseblock.grid import BlockGrid
from sparseblock.plan import Plan
from sparseblock.plan.compile import trace
from sparseblock.plan.passes import run_passes
from sparseblock.plan.reference import Reference


def check(
    case: Case,
    streams: int,
    masks: list[torch.Tensor],
    deep: bool = False,
    dtype: torch.dtype = torch.float32,
    make_plan: Callable[..., Plan] = Plan,
) -> None:
    """A whole first frame and then one frame per mask [n, rows, cols], against the dense network and the reference."""
    graph, out_spec = trace(case.network, case.frames())
    grid = BlockGrid(*case.frame[1:], case.block)
    plan = make_plan(run_passes(graph, grid), out_spec, grid, dtype)
    dense = copy.deepcopy(case.network).double()
    state = plan.new_state(streams)
    references = [Reference(graph, grid) if deep else ErrorBound(graph, grid, dtype) for _ in range(streams)]
    everything = torch.ones(streams, grid.rows, grid.cols, dtype=torch.bool)
    for seen, mask in enumerate([everything, *masks]):
        frame = case.frames(streams)
        leaves = [leaf.cpu() for leaf in pytree.tree_leaves(plan(frame.to(plan.device), mask, state))]
        for stream, reference in enumerate(references):
            image = frame[stream : stream + 1]
            expected = reference(image, mask[stream])
            bounds = [depth_tolerance(reference, dtype)] * len(leaves) if deep else reference.bounds()
            if seen == 0:
                with torch.no_grad():
                    expected = pytree.tree_leaves(dense(image.double()))
            for leaf, value, bound in zip(leaves, expected, bounds, strict=True):
                assert_within(leaf[stream : stream + 1], value, bound)


def random_masks(case: Case, streams: int, seed: int) -> list[torch.Tensor]:
    """None, one block, half of them."""
    generator = torch.Generator().manual_seed(seed)
    grid = BlockGrid(*case.frame[1:], case.block)
    chance = torch.rand(streams, grid.rows, grid.cols, generator=generator)
    return [chance < 0, chance == chance.max(), chance < 0.5]


@given(cases(), st.integers(1, 2), st.integers(0, 2**16))
def test_random_network(case, streams, seed):
    check(case, streams, random_masks(case, streams, seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@settings(max_examples=40)
@given(cases(longest=4), st.integers(1, 2), st.integers(0, 2**16))
def test_random_network_stored_in_halves(dtype, case, streams, seed):
    check(case, streams, random_masks(case, streams, seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MINIATURES)
def test_miniature_stored_in_halves(name, dtype):
    case = miniature(name)
    check(case, 2, random_masks(case, 2, seed=1), deep=True, dtype=dtype)


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("block", [8, 16, 64])
@pytest.mark.parametrize("name", MINIATURES)
def test_miniature(name, block, streams):
    case = miniature(name, block)
    check(case, streams, random_masks(case, streams, seed=1) * 2, deep=True)
