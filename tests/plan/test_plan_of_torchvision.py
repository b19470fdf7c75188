"""Networks not written for this library: whatever has no rule runs dense, and all of it equals the dense network."""

from __future__ import annotations

import pytest
import torch
from networks import Case, set_norms
from test_random_networks import check, random_masks
from torchvision.models import densenet121, detection, efficientnet_b0, mobilenet_v2

import sparseblock


def backbone() -> torch.nn.Module:
    return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone


# Depthwise convolutions; a pyramid returned as a dict; squeeze-and-excitation; concat of concats.
NETWORKS = {
    "mobilenet_v2": (lambda: mobilenet_v2().features, {"sparse"}),
    "resnet50_fpn": (backbone, {"sparse", "dense"}),
    "efficientnet_b0": (lambda: efficientnet_b0().features[:4], {"sparse", "incremental"}),
    "densenet121": (lambda: densenet121().features[:6], {"sparse"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision(name):
    torch.manual_seed(0)
    make, placements = NETWORKS[name]
    case = Case(set_norms(make()), (3, 64, 96), 32)
    report = sparseblock.compile(case.network, case.frames(), case.block).report()
    assert {node.placement for node in report.nodes} == placements
    assert all(node.reason for node in report.nodes if node.placement == "dense")
    check(case, 1, random_masks(case, 1, seed=0)[1:], deep=True)
