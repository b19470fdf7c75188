"""conv2d, layer by layer: time at several densities against PyTorch's dense float32 convolution in channels-last.

The sparse time is that of the convolution's step inside of a plan, as it runs in a network. Blocks are drawn at random.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import sparseblock
from bench.layers import SWIFTNET_RN18
from bench.timing import measure, wall

DENSITIES = (1.0, 0.5, 0.25, 0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layer", SWIFTNET_RN18, ids=lambda layer: layer.name.replace(" ", "-").replace("/", "s"))
def test_conv2d(benchmark, layer, threads, dtype):
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    padding = layer.dilation * (layer.kernel - 1) // 2
    conv = torch.nn.Conv2d(
        layer.channels, layer.out_channels, layer.kernel, layer.stride, padding, layer.dilation, bias=True
    ).eval()
    frame = torch.randn(1, layer.channels, layer.height, layer.width)
    plan = sparseblock.compile(conv, frame, block_size=layer.block * layer.stride, dtype=getattr(torch, dtype))
    state = plan.new_state()
    plan(frame, None, state)

    x = frame.contiguous(memory_format=torch.channels_last)
    weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
    bias = conv.bias.detach()
    generator = torch.Generator().manual_seed(1)
    blocks = plan.grid.rows * plan.grid.cols

    def sparse(density: float):
        mask = torch.zeros(blocks, dtype=torch.bool)
        mask[torch.randperm(blocks, generator=generator)[: max(1, round(density * blocks))]] = True
        mask = mask.reshape(1, plan.grid.rows, plan.grid.cols)
        return lambda: sum(seconds for name, seconds in plan.profile(frame, mask, state) if "conv" in name)

    with torch.no_grad():
        contenders = {"dense": wall(lambda: F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation))}
        contenders |= {f"{density:g}": sparse(density) for density in DENSITIES}
        measure(benchmark, contenders, rounds=15)
    benchmark.extra_info |= {
        "row": layer.name,
        "threads": threads,
        "dtype": dtype,
        "macs": layer.macs,
        "bytes": layer.bytes(getattr(torch, dtype).itemsize),
        "baseline": "dense",
    }
