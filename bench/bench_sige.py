"""The sparse convolutions of SIGE's diffusion model (Li et al., NeurIPS 2022: DDPM, 256x256), at its edits' areas.

The edited area is a square in the middle. The list of blocks is made of the mask within every call; blocks are 8x8
pixels.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bench.timing import measure, wall
from sparseblock import BlockSet, ops

BLOCK = 8
LAYERS = (  # channels in and out, kernel, side
    (128, 128, 3, 256),
    (256, 128, 3, 256),
    (256, 128, 1, 256),
    (128, 128, 3, 128),
    (256, 256, 3, 128),
    (384, 128, 3, 128),
    (384, 128, 1, 128),
    (256, 128, 3, 128),
    (256, 128, 1, 128),
    (128, 256, 3, 64),
    (256, 256, 3, 64),
    (512, 256, 3, 64),
    (512, 256, 1, 64),
    (384, 256, 3, 64),
)
AREAS = (1.0, 0.1545, 0.012)  # of the frame: whole, of the repository's example mask, of the paper's edits


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: "-".join(map(str, layer)))
def test_sige(benchmark, layer):
    torch.manual_seed(0)
    torch.set_num_threads(2)
    c, k, kernel, side = layer
    layout = {"memory_format": torch.channels_last}
    x, weight = (
        torch.randn(1, c, side, side).contiguous(**layout),
        torch.randn(k, c, kernel, kernel).contiguous(**layout),
    )
    bias, out = torch.randn(k), torch.empty(1, k, side, side).contiguous(**layout)
    padding = kernel // 2
    shares = {}

    def sparse(area: float):
        rows = math.ceil(side / BLOCK)
        half = math.sqrt(area) * side / 2
        first, last = int((side / 2 - half) // BLOCK), math.ceil((side / 2 + half) / BLOCK)
        mask = torch.zeros(1, rows, rows, dtype=torch.bool)
        mask[:, first:last, first:last] = True
        shares[f"{area:g}"] = float(mask.float().mean())
        return lambda: ops.conv2d(x, weight, bias, BlockSet.from_mask(mask, BLOCK), out, padding=padding)

    contenders = {"dense": wall(lambda: F.conv2d(x, weight, bias, 1, padding))}
    contenders |= {f"{area:g}": wall(sparse(area)) for area in AREAS}
    with torch.no_grad():
        measure(benchmark, contenders, rounds=25)
    benchmark.extra_info |= {
        "row": f"{kernel}x{kernel} {c} to {k}, {side}x{side}",
        "threads": 2,
        "macs": side * side * c * k * kernel * kernel,
        "baseline": "dense",
        "active": shares,
    }
