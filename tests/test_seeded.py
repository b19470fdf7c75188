"""Initial weights from a seed, while other threads seed and draw as well."""

from __future__ import annotations

import threading

import pytest
import tasknets
import torch
from blockcopy import policies
from blockcopy.information_gain import task_named
from blockcopy.policy_network import PolicyNetwork, summaries
from blockcopy.trainer import Training
from tasknets.vdsr import VDSR
from torch import nn

TASK = task_named("segmentation")


def policy(seed: int) -> torch.Tensor:
    made = policies.make("blockcopy", 0.3, seed, TASK, Training())
    made.begin(torch.zeros(1, 3, 16, 16), torch.zeros(1, 4, 8, 8))
    return made.trainer.network.parameters


def task_network(seed: int) -> torch.Tensor:
    return torch.cat([value.flatten() for value in tasknets.load("vdsr", seed=seed).model.parameters()])


@pytest.mark.parametrize(
    "make, plainly",
    [
        (policy, lambda: PolicyNetwork(3, 4, summaries(TASK)).parameters),
        (task_network, lambda: torch.cat([value.detach().flatten() for value in VDSR().parameters()])),
    ],
    ids=["policy", "task network"],
)
def test_what_other_threads_seed_and_draw_changes_no_weight_and_is_theirs(make, plainly, monkeypatch):
    """Another thread acts before every layer is initialised."""
    drawn, initialise = [], nn.Conv2d.reset_parameters

    def late(layer):
        other = threading.Thread(target=lambda: drawn.append(torch.rand(3)))
        other.start()
        other.join()
        initialise(layer)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = plainly()
        torch.manual_seed(99)
        with monkeypatch.context() as patch:
            patch.setattr(nn.Conv2d, "reset_parameters", late)
            assert torch.equal(make(7), expected)
        torch.manual_seed(99)
        assert len(drawn) > 1 and torch.equal(torch.cat(drawn), torch.cat([torch.rand(3) for _ in drawn]))
