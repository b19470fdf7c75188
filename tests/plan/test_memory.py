"""What a plan keeps in memory: each weight once."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import sparseblock


@pytest.mark.parametrize("options", [{}, {"gates": ["1"]}, {"dtype": torch.bfloat16}, {"algorithms": "winograd_4x4"}])
def test_a_plan_keeps_its_packed_weights_alone(options):
    filters = [(41, 3, 3, 3), (43, 41, 3, 3), (43, 47, 2, 2)]  # sizes that nothing else has
    network = nn.Sequential(
        nn.Conv2d(3, 41, 3, padding=1),
        nn.Conv2d(41, 43, 3, padding=1, bias=False),
        nn.BatchNorm2d(43),
        nn.ReLU(),
        nn.ConvTranspose2d(43, 47, 2, 2),
    ).eval()

    def alive() -> list[tuple[int, ...]]:
        gc.collect()
        held = [x for x in gc.get_objects() if type(x) in (torch.Tensor, nn.Parameter) and x.device.type == "cpu"]
        return [tuple(x.shape) for x in held if tuple(x.shape) in filters]

    assert len(alive()) == len(filters)
    plan = sparseblock.compile(network, torch.rand(1, 3, 32, 32), block_size=16, **options)
    assert len(alive()) == len(filters)  # the module's own, and no folded ones
    del network
    assert alive() == []
    assert plan.report().weight_bytes
