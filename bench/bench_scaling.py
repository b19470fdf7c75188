"""Whole frames of one network: what the size of a block, the resolution and the number of threads do to the gain."""

from __future__ import annotations

import pytest

from bench.bench_network import measure_frames

NETWORK = "swiftnet-rn18"
BLOCKS = (32, 64, 128, 256)
SIZES = ((256, 512), (512, 1024), (1024, 2048))
CASES = (
    *((512, 1024, block, 2) for block in BLOCKS),
    *((*size, 128, 2) for size in SIZES if size != (512, 1024)),
    (512, 1024, 128, 1),
)


@pytest.mark.parametrize(("height", "width", "block", "threads"), CASES)
def test_scaling(benchmark, height, width, block, threads):
    measure_frames(benchmark, NETWORK, height, width, block, threads)
    benchmark.extra_info["row"] = f"{NETWORK} {height}x{width}, blocks of {block} px"
