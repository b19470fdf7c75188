"""Whole frames beside the inference engines for CPUs, in one run: float32 and bfloat16 at several densities."""

from __future__ import annotations

import pytest
import tasknets
import timm
import torch
import torch.nn.functional as F
from torch import nn

import sparseblock
from bench.engines import ENGINES, engines
from bench.networks import DeepLabV3
from bench.timing import measure, wall

DENSITIES = (1.0, 0.5, 0.3, 0.1, 0.02)


class _HRNet(nn.Module):
    """HRNetV2-W32 for segmentation: its maps from stride 4 on, side by side, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model("hrnet_w32", features_only=True, pretrained=False)
        self.classifier = nn.Conv2d(sum(self.network.feature_info.channels()[1:]), 19, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        finest, *coarse = self.network(x)[1:]
        size = finest.shape[2:]
        resized = [F.interpolate(y, size=size, mode="bilinear", align_corners=False) for y in coarse]
        return self.classifier(torch.cat([finest, *resized], 1))


CASES = {
    "swiftnet-rn18 1024x2048": ("swiftnet-rn18", 1024, 2048),
    "swiftnet-rn50 1024x2048": ("swiftnet-rn50", 1024, 2048),
    "vdsr 720x1280": ("vdsr", 720, 1280),
    "deeplabv3-rn50 512x1024": (DeepLabV3, 512, 1024),
    "hrnet-w32 512x1024": (_HRNet, 512, 1024),
}


@pytest.mark.parametrize("case", CASES)
def test_engines(benchmark, case):
    network, height, width = CASES[case]
    torch.manual_seed(0)
    torch.set_num_threads(2)
    if isinstance(network, str):
        task = tasknets.load(network)
        model, frame = task.model, task.preprocess(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8))
    else:
        model, frame = network().eval(), torch.rand(1, 3, height, width)
    plans = {
        "": sparseblock.compile(model, frame, block_size=128),
        "bfloat16 ": sparseblock.compile(model, frame, block_size=128, dtype=torch.bfloat16),
    }
    contenders = {name: wall(run) for name, run in engines(model, frame).items()}
    generator = torch.Generator().manual_seed(1)
    for prefix, plan in plans.items():
        state = plan.new_state()
        plan(frame, None, state)
        blocks = plan.grid.rows * plan.grid.cols
        for density in DENSITIES:
            mask = torch.zeros(blocks, dtype=torch.bool)
            mask[torch.randperm(blocks, generator=generator)[: max(1, round(density * blocks))]] = True
            mask = mask.reshape(1, plan.grid.rows, plan.grid.cols)
            contenders[f"{prefix}{density:g}"] = wall(
                lambda plan=plan, mask=mask, state=state: plan(frame, mask, state)
            )
    with torch.inference_mode():
        seconds = measure(benchmark, contenders, rounds=5)
    benchmark.extra_info |= {
        "row": case,
        "threads": 2,
        "macs": plans[""].macs,
        "baseline": min(ENGINES, key=seconds.get),
    }
