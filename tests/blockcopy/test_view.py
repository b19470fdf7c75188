from __future__ import annotations

import pytest
import torch
from blockcopy.view import PIXELS, PolicyView, Standardise, block_max, block_mean, enlarge, spread
from hypothesis import assume, given
from hypothesis import strategies as st

from sparseblock import BlockGrid, SparseBlockError
from sparseblock.dense import channel_moments

SIZES = st.tuples(st.integers(1, 150), st.integers(1, 150), st.sampled_from([1, 2, 4, 7, 8, 12, 16, 20, 32, 64, 128]))


@given(SIZES)
def test_any_frame_and_block_size_has_8x8_pixels_a_block(size):
    height, width, block = size
    grid = BlockGrid(height, width, block)
    small, finite = PolicyView(grid).frame(torch.rand(1, 3, height, width))
    assert finite
    assert small.shape == (1, 3, grid.rows * PIXELS, grid.cols * PIXELS)


@given(SIZES, st.randoms(use_true_random=False))
def test_a_bad_pixel_anywhere_shows_in_its_block(size, random):
    height, width, block = size
    grid = BlockGrid(height, width, block)
    frame = torch.zeros(1, 1, height, width)
    y, x = random.randrange(height), random.randrange(width)
    frame[0, 0, y, x] = float("nan")
    small, finite = PolicyView(grid).frame(frame)
    assert not finite
    bad = block_max(small.isnan().float()[0, 0], (grid.rows, grid.cols)).bool()
    assert bad[y // block, x // block]
    assert bad.sum() == 1


def test_whole_blocks_are_area_averages():
    frame = torch.rand(1, 2, 64, 96)
    small, _ = PolicyView(BlockGrid(64, 96, 32)).frame(frame)
    torch.testing.assert_close(small, frame.reshape(1, 2, 16, 4, 24, 4).mean((3, 5)))


@given(SIZES, st.sampled_from([1, 2, 4, 8]))
def test_samples_of_a_block_lie_in_it(size, stride):
    height, width, block = size
    if block % stride:
        block *= stride
    grid = BlockGrid(height, width, block)
    h, w = -(-height // stride), -(-width // stride)
    assume(round(height / h) == stride == round(width / w))  # a frame of a few pixels does not say what the stride is
    block_of_output = (torch.arange(h)[:, None] // (block // stride)) * grid.cols + torch.arange(w) // (block // stride)
    view = PolicyView(grid)
    sampled = view.output(block_of_output[None, None].float())
    expected = torch.arange(grid.rows * grid.cols).view(grid.rows, grid.cols)
    assert torch.equal(sampled[0, 0].long(), enlarge(expected, view.samples))


def test_samples_are_a_copy():
    output = torch.rand(1, 2, 32, 32)
    sampled = PolicyView(BlockGrid(32, 32, 16)).output(output)
    before = sampled.clone()
    output.zero_()
    assert torch.equal(sampled, before)


@pytest.mark.parametrize("block, samples", [(4, 1), (16, 1), (32, 2), (64, 4), (100, 4), (128, 8), (512, 8)])
def test_outputs_are_sampled_every_16_pixels(block, samples):
    assert PolicyView(BlockGrid(512, 512, block)).samples == samples


@pytest.mark.parametrize(
    "output, what",
    [
        ((1, 2), "a tuple of 2"),
        ({"out": 1, "aux": 2}, "a dict of out, aux"),
        (torch.rand(1, 5), "[1, 5]"),
        (torch.rand(2, 1, 4, 4), "[2, 1, 4, 4]"),
    ],
)
def test_an_output_that_is_no_map_is_refused(output, what):
    with pytest.raises(SparseBlockError) as error:
        PolicyView(BlockGrid(32, 32, 16)).output(output)
    assert str(error.value) == (
        f"BlockCopy: the network's output is {what}; the policy learns from one tensor [1, k, h, w]; "
        "give read=, a function that takes that from the output, or choose another policy or task"
    )


def test_block_mean_and_max():
    x = torch.arange(16.0).view(4, 4)
    assert block_max(x, (2, 2)).tolist() == [[5, 7], [13, 15]]
    assert block_mean(x, (2, 2)).tolist() == [[2.5, 4.5], [10.5, 12.5]]


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (255.0, 0.0), (0.02, -0.01)])
def test_frames_of_any_range_become_standard(scale, shift):
    torch.manual_seed(0)
    frames = torch.randn(200, 1, 3, 16, 16)
    standard, other = _standardise(frames), _standardise(frames * scale + shift)
    torch.testing.assert_close(_scaled(other, frames[-1] * scale + shift), _scaled(standard, frames[-1]))


def _standardise(frames: torch.Tensor) -> Standardise:
    standardise = Standardise()
    for frame in frames:
        standardise.update(*channel_moments(frame))
    return standardise


def _scaled(standardise: Standardise, frame: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (standardise.mean, standardise.deviation))
    return (frame - mean) / deviation


def test_a_flat_frame_stays_finite():
    standardise = _standardise(torch.full((1, 1, 3, 8, 8), 7.0))
    assert torch.equal(_scaled(standardise, torch.full((1, 3, 8, 8), 8.0)), torch.ones(1, 3, 8, 8))


@given(st.integers(1, 400))
def test_spread_is_even(count):
    values = spread(count).sort().values
    assert len(values.unique()) == count
    assert values[0] >= 0 and values[-1] < 1
    gaps = torch.cat([values[1:] - values[:-1], values[:1] + 1 - values[-1:]])
    assert gaps.max() * count < 3
