"""Whole frames: networks at several densities of random blocks against PyTorch's dense network in channels-last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tasknets
import torch

import sparseblock
from bench.timing import measure, wall

DENSITIES = (1.0, 0.5, 0.3, 0.1)
WEIGHTS = {"espnet": "espnet_p2q8_cityscapes.pth", "vdsr": "vdsr_epoch50_converted.pth"}
CASES = (
    ("swiftnet-rn18", 1024, 2048, 128),
    ("swiftnet-rn50", 1024, 2048, 128),
    ("espnet", 432, 768, 64),
    ("espnet", 1024, 2048, 128),
    ("vdsr", 720, 1280, 128),
    ("streets", 512, 1024, 64),
)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "height", "width", "block"), CASES)
def test_network(benchmark, name, height, width, block, threads):
    measure_frames(benchmark, name, height, width, block, threads)
    benchmark.extra_info["row"] = f"{name} {height}x{width}"


def measure_frames(benchmark, name: str, height: int, width: int, block: int, threads: int) -> None:
    """A task network's frames at every density beside the dense network, with all else that a row of a record has."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    data = os.environ.get("SPARSEBLOCK_DATA")
    weights = Path(data) / "weights" / WEIGHTS[name] if data and name in WEIGHTS else None
    network = tasknets.load(name, weights)
    frame = network.preprocess(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8))
    plan = sparseblock.compile(network.model, frame, block_size=block)
    state = plan.new_state()
    plan(frame, None, state)
    model = network.model.to(memory_format=torch.channels_last)
    x = frame.contiguous(memory_format=torch.channels_last)
    blocks = plan.grid.rows * plan.grid.cols
    generator = torch.Generator().manual_seed(1)

    def sparse(density: float):
        mask = torch.zeros(blocks, dtype=torch.bool)
        mask[torch.randperm(blocks, generator=generator)[: max(1, round(density * blocks))]] = True
        mask = mask.reshape(1, plan.grid.rows, plan.grid.cols)
        return wall(lambda: plan(frame, mask, state))

    with torch.inference_mode():
        contenders = {"dense": wall(lambda: model(x))}
        contenders |= {f"{density:g}": sparse(density) for density in DENSITIES}
        measure(benchmark, contenders, rounds=5 if plan.macs > 5e10 else 15)
    benchmark.extra_info |= {
        "threads": threads,
        "macs": plan.macs,
        "baseline": "dense",
    }
