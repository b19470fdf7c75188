"""The task networks: captured as they are, nearly all of their work sparse, equal to the dense network."""

from __future__ import annotations

import copy

import pytest
import tasknets
import torch
from error_bound import assert_within, depth_tolerance
from networks import Case, set_norms
from test_random_networks import random_masks
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock.plan.compile import trace
from sparseblock.plan.reference import Reference

SIZES = {
    "swiftnet-rn18": (3, 192, 320, 128),
    "swiftnet-rn50": (3, 135, 240, 64),
    "espnet": (3, 120, 168, 64),
    "vdsr": (1, 50, 70, 32),
    "streets": (3, 100, 150, 64),
    "csp": (3, 96, 112, 32),
}


@pytest.mark.parametrize("name", SIZES)
def test_task_network(name):
    torch.manual_seed(0)
    *frame, block = SIZES[name]
    case = Case(set_norms(tasknets.load(name).model), tuple(frame), block)
    plan = sparseblock.compile(case.network, case.frames(), block)
    assert 1 - plan.dense_macs / plan.macs >= 0.95
    assert not any(node.op == "copy" for node in plan.report().nodes[1:]), "nothing but the frame is copied"
    graph, _ = trace(case.network, case.frames())
    reference = Reference(graph, plan.grid)
    state = plan.new_state()
    everything = torch.ones(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    for seen, mask in enumerate([everything, *random_masks(case, 1, seed=0)]):
        image = case.frames()
        out = plan(image, mask, state)
        expected = reference(image, mask[0])
        if seen == 0:
            with torch.no_grad():
                expected = pytree.tree_leaves(copy.deepcopy(case.network).double()(image.double()))
        for made, exact in zip(pytree.tree_leaves(out), expected, strict=True):
            assert_within(made, exact, depth_tolerance(reference))
