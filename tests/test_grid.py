"""The formulas of grid.py against what PyTorch does."""

from __future__ import annotations

import ctypes
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from sparseblock import BlockGrid, SparseBlockError
from sparseblock.grid import (
    conv_extent,
    conv_transpose_extent,
    interpolate_extent,
    interpolate_scale,
    pool_extent,
)
from sparseblock.testing import assert_matches, tolerance

SIZE, KERNEL, STRIDE, PADDING, DILATION = (st.integers(*r) for r in [(1, 40), (1, 7), (1, 5), (0, 5), (1, 3)])


@given(SIZE, KERNEL, STRIDE, PADDING, DILATION)
def test_conv_extent(size, kernel, stride, padding, dilation):
    extent = conv_extent(size, kernel, stride, padding, dilation)
    assume(extent >= 1)
    out = F.conv1d(torch.zeros(1, 1, size), torch.zeros(1, 1, kernel), None, stride, padding, dilation)
    assert out.shape[2] == extent


@given(SIZE, KERNEL, STRIDE, PADDING, DILATION, st.data())
def test_conv_transpose_extent(size, kernel, stride, padding, dilation, data):
    extra = data.draw(st.integers(0, max(stride, dilation) - 1))
    extent = conv_transpose_extent(size, kernel, stride, padding, dilation, extra)
    assume(extent >= 1)
    zeros = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
    assert F.conv_transpose1d(*zeros, None, stride, padding, extra, 1, dilation).shape[2] == extent


@given(SIZE, KERNEL, STRIDE, DILATION, st.booleans(), st.data())
def test_pool_extent(size, kernel, stride, dilation, ceil_mode, data):
    padding = data.draw(st.integers(0, kernel // 2))
    extent = pool_extent(size, kernel, stride, padding, dilation, ceil_mode)
    assume(extent >= 1)
    out = F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, dilation, ceil_mode)
    assert out.shape[2] == extent


@given(SIZE, st.floats(0.1, 5))
def test_interpolate_extent(size, factor):
    extent = interpolate_extent(size, factor)
    assume(extent >= 1)
    assert F.interpolate(torch.zeros(1, 1, size), scale_factor=factor).shape[2] == extent


@given(SIZE, SIZE, st.booleans())
def test_interpolate_scale_gives_the_positions_of_pytorch(size, out_size, align_corners):
    """A ramp is resized to its own source positions, clamped to the ramp."""
    scale = interpolate_scale(size, out_size, "bilinear", align_corners, None)
    ramp = torch.arange(size, dtype=torch.float64)[None, None]
    place = torch.arange(out_size, dtype=torch.float64)
    position = place * scale if align_corners else ((place + 0.5) * scale - 0.5).clamp(min=0)
    expected = F.interpolate(ramp, out_size, mode="linear", align_corners=align_corners)[0, 0]
    assert_matches(position.clamp(max=size - 1), expected, tolerance(1, ramp + 1))


@given(SIZE, st.floats(0.1, 5), st.booleans())
def test_a_scale_factor_counts_itself(size, factor, align_corners):
    out_size = interpolate_extent(size, factor)
    assume(out_size >= 1 and out_size != size)
    scale = interpolate_scale(size, out_size, "bilinear", align_corners, factor)
    assert scale == (interpolate_scale(size, out_size, "bilinear", True, None) if align_corners else 1 / factor)


@given(SIZE, st.floats(0.1, 5))
def test_nearest_takes_the_pixels_of_pytorch(size, factor):
    """Also where a factor gives an output as large as the input, or twice as large."""
    out_size = interpolate_extent(size, factor)
    assume(out_size >= 1)
    scale = torch.tensor(interpolate_scale(size, out_size, "nearest", False, factor), dtype=torch.float32)
    taken = (torch.arange(out_size) * scale).floor().clamp(max=size - 1)
    ramp = torch.arange(size, dtype=torch.float32)[None, None, :, None]
    assert taken.tolist() == F.interpolate(ramp, scale_factor=(factor, 1.0), mode="nearest")[0, 0, :, 0].tolist()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_rounding_the_scale_to_float32_is_dividing_in_float32(size, out_size):
    divided = torch.tensor(size, dtype=torch.float32) / torch.tensor(out_size, dtype=torch.float32)
    assert ctypes.c_float(interpolate_scale(size, out_size, "nearest", False, None)).value == divided.item()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
def test_a_grid_covers_the_frame_and_no_more(height, width, block):
    grid = BlockGrid(height, width, block)
    assert (grid.rows - 1) * block < height <= grid.rows * block
    assert (grid.cols - 1) * block < width <= grid.cols * block


def test_block_at_a_stride():
    grid = BlockGrid(360, 640, 128)
    assert grid.block_at(4, 90, 160) == 32
    assert grid.block_at(32, 12, 20) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BlockGrid(0, 640, 128), "BlockGrid: height is 0; it must be a positive integer (pixels) below 2**31"),
        (
            lambda: BlockGrid(360, 640, 12.5),
            "BlockGrid: block_size is 12.5; it must be a positive integer (pixels) below 2**31",
        ),
        (
            lambda: BlockGrid(360, 640, 2**31),
            "BlockGrid: block_size is 2147483648; it must be a positive integer (pixels) below 2**31",
        ),
        (
            lambda: BlockGrid(360, 640, True),
            "BlockGrid: block_size is True; it must be a positive integer (pixels) below 2**31",
        ),
        (
            lambda: BlockGrid(360, 640, 100).block_at(8, 45, 80),
            "block of 100 px is no multiple of the stride 8",
        ),
        (
            lambda: BlockGrid(256, 256, 128).block_at(2, 130, 128),
            "2x2 blocks of 64 px do not cover a map of 130x128 at stride 2",
        ),
    ],
)
def test_wrong_input_is_one_clear_line(call, message):
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        call()
