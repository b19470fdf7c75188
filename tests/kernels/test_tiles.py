"""Every kernel on every instruction set, at the sizes where its tiles begin and end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparseblock import BlockSet
from sparseblock.testing import cases, channels_last, check_contract, check_independence

# Vectors are 4, 8 or 16 wide, units of output channels 8 to 32, tiles 6 or 12 pixels.
CHANNELS = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PIXELS = [1, 2, 5, 6, 7, 11, 12, 13, 23, 24, 25]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def blocks(case, *block: int, density: float = 0.5):
    """`case` on a random half of its blocks."""
    n, _, h, w = case.out_shape
    mask = torch.rand(n, -(-h // block[0]), -(-w // block[1]), generator=torch.Generator().manual_seed(1)) < density
    return replace(case, blocks=BlockSet.from_mask(mask, block))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", CHANNELS)
def test_output_channels(isa, k, dtype):
    x, weight, residual = normal(1, 5, 7, 9).to(dtype), normal(k, 5, 3, 3), normal(1, k, 7, 9).to(dtype)
    case = cases.conv2d(x, weight, normal(k), residual, padding=(1, 1), activation="prelu", slope=normal(k).abs())
    check_contract(blocks(case, 3, 4))
    check_contract(case)


@pytest.mark.parametrize("c", CHANNELS)
def test_input_channels(isa, c):
    check_contract(blocks(cases.conv2d(normal(2, c, 6, 8), normal(9, c, 3, 3), padding=(1, 1)), 2, 3))


@pytest.mark.parametrize("pixels", PIXELS)
def test_pixels_of_a_block(isa, pixels):
    case = cases.conv2d(normal(1, 6, 2, 3 * pixels), normal(18, 6, 1, 3), padding=(0, 1))
    check_contract(blocks(case, 1, pixels))
    check_independence(blocks(case, 1, pixels))


def test_sums_longer_than_a_panel_of_weights(isa):
    check_contract(blocks(cases.conv2d(normal(1, 1000, 4, 5), normal(33, 1000, 3, 3), padding=(1, 1)), 2, 2))


def test_blocks_cut_into_uneven_strips(isa):
    check_contract(blocks(cases.conv2d(normal(1, 2, 40, 200), normal(5, 2, 3, 3), padding=(1, 1)), 20, 65))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CHANNELS[1:])
def test_depthwise(isa, c, dtype):
    case = cases.conv2d(normal(1, c, 9, 11).to(dtype), normal(c, 1, 3, 3), normal(c), padding=(1, 1), groups=c)
    check_contract(blocks(case, 4, 3))
    check_independence(blocks(case, 4, 3))


@pytest.mark.parametrize("out_group", [1, 3, 8, 17, 33])
def test_groups(isa, out_group):
    check_contract(
        blocks(cases.conv2d(normal(1, 6, 8, 8), normal(3 * out_group, 2, 3, 3), padding=(1, 1), groups=3), 3, 3)
    )


@pytest.mark.parametrize("k", [1, 16, 33])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed(isa, k, stride):
    case = cases.conv_transpose2d(
        normal(1, 7, 6, 5), normal(7, k, 4, 3), normal(k), stride=(stride, stride), padding=(1, 1)
    )
    check_contract(blocks(case, 4, 5))
    check_independence(blocks(case, 4, 5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CHANNELS)
def test_the_other_kernels(isa, c, dtype):
    x = normal(2, c, 8, 10).to(dtype)
    for case in (
        cases.max_pool2d(x, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)),
        cases.avg_pool2d(x, kernel_size=(3, 2), stride=(2, 1), padding=(1, 1), count_include_pad=False),
        cases.interpolate(x, (13, 20)),
        cases.interpolate(x, (13, 20), mode="bilinear"),
        cases.interpolate(x, (5, 4), mode="bilinear", align_corners=True),
        cases.add(x, normal(2, c, 10, 8).to(dtype).transpose(2, 3).contiguous(), activation="relu6"),
        cases.affine(x, normal(c), normal(c), activation="leaky_relu", slope=0.1),
    ):
        check_contract(blocks(case, 4, 3))
        check_independence(blocks(case, 4, 3))


@pytest.mark.parametrize("place", [0, 4, 8])
def test_nan_wins_over_any_maximum(isa, place):
    x = normal(1, 5, 3, 3)
    x.view(5, 9)[2, place] = torch.nan
    case = cases.max_pool2d(x, kernel_size=(3, 3), stride=(1, 1))
    out = case.run({"x": channels_last(x)}, case.blocks, channels_last(torch.zeros(case.out_shape)))
    assert out[0, :, 0, 0].isnan().tolist() == [False, False, True, False, False]
