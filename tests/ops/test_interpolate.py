"""interpolate where PyTorch's source positions have corners of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparseblock import BlockSet
from sparseblock.testing import cases, check_contract


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("size", "factor"),
    [(2, 1.3), (3, 1.2), (3, 2.3), (5, 2.15), (7, 0.99), (10, 0.3)],
    ids=["as large", "as large, of three", "twice as large", "twice as large, of five", "a little smaller", "a third"],
)
def test_a_factor_that_is_no_ratio_of_the_sizes(mode, size, factor):
    """An output that turns out as large as the input is a copy, whatever the factor says; for nearest, doubling too."""
    check_contract(cases.interpolate(normal(1, 5, size, size), mode=mode, scale_factor=(factor, factor)))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(("size", "out"), [((270, 3), (1080, 5)), ((17, 1000), (18, 999)), ((1, 1), (90, 160))])
def test_large_frames_in_blocks(mode, size, out):
    case = cases.interpolate(normal(1, 2, *size), out, mode=mode)
    rows, cols = -(-out[0] // 32), -(-out[1] // 48)
    mask = torch.rand(1, rows, cols, generator=torch.Generator().manual_seed(0)) < 0.5
    check_contract(replace(case, blocks=BlockSet.from_mask(mask, (32, 48))))


@pytest.mark.parametrize("align_corners", [True, False])
def test_one_pixel_in_and_out(align_corners):
    for size, out in [((1, 1), (1, 1)), ((5, 4), (1, 1)), ((1, 1), (3, 2)), ((1, 6), (6, 1))]:
        check_contract(cases.interpolate(normal(1, 3, *size), out, mode="bilinear", align_corners=align_corners))
