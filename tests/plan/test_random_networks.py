"""Plans of random networks: all blocks active is the dense network, and any mask is what the contract says node by node."""

from __future__ import annotations

import copy

import pytest
import torch
from error_bound import ErrorBound, assert_within
from hypothesis import given
from hypothesis import strategies as st
from networks import MINIATURES, Case, cases, miniature
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock.plan.compile import trace


def check(case: Case, streams: int, masks: list[torch.Tensor]) -> None:
    """A whole first frame and then one frame per mask [n, rows, cols], against the dense network and the reference."""
    example = case.frames()
    plan = sparseblock.compile(case.network, example, case.block)
    captured, _ = trace(case.network, example)
    dense = copy.deepcopy(case.network).double()
    state = plan.new_state(streams)
    references = [ErrorBound(captured, plan.grid) for _ in range(streams)]
    everything = torch.ones(streams, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    for seen, mask in enumerate([everything, *masks]):
        frame = case.frames(streams)
        leaves = pytree.tree_leaves(plan(frame, mask, state))
        for stream, reference in enumerate(references):
            image = frame[stream : stream + 1]
            results = reference(image, mask[stream])
            if seen == 0:
                with torch.no_grad():
                    exact = pytree.tree_leaves(dense(image.double()))
                results = [(value, bound) for value, (_, bound) in zip(exact, results, strict=True)]
            for leaf, (expected, bound) in zip(leaves, results, strict=True):
                assert_within(leaf[stream : stream + 1], expected, bound)


def random_masks(case: Case, streams: int, seed: int) -> list[torch.Tensor]:
    """None, one block, half of them."""
    generator = torch.Generator().manual_seed(seed)
    grid = sparseblock.BlockGrid(*case.frame[1:], case.block)
    chance = torch.rand(streams, grid.rows, grid.cols, generator=generator)
    return [chance < 0, chance == chance.max(), chance < 0.5]


@given(cases(), st.integers(1, 2), st.integers(0, 2**16))
def test_random_network(case, streams, seed):
    check(case, streams, random_masks(case, streams, seed))


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("block", [8, 16, 64])
@pytest.mark.parametrize("name", MINIATURES)
def test_miniature(name, block, streams):
    case = miniature(name, block)
    check(case, streams, random_masks(case, streams, seed=1) * 2)
