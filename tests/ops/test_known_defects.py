"""Defects that other block-sparse systems were found to have, each as a test of this one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sparseblock import BlockSet, FeatureCache, ops
from sparseblock.cache import PlaneSpec
from sparseblock.testing import (
    assert_identical,
    assert_matches,
    cases,
    channels_last,
    check_contract,
    check_independence,
    tolerance,
)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_bias_is_not_added_again_on_every_frame():
    """Skip-Convolutions' reference: after t frames of a still video the output has drifted by t times the bias."""
    x, weight, bias = channels_last(normal(1, 3, 8, 8)), normal(4, 3, 3, 3), normal(4)
    out, blocks = channels_last(torch.zeros(1, 4, 8, 8)), BlockSet.all(1, 2, 2, 4)
    first = ops.conv2d(x, weight, bias, blocks, out, padding=1).clone()
    for _ in range(5):
        ops.conv2d(x, weight, bias, blocks, out, padding=1)
    assert_identical(out, first)


def test_small_changes_are_not_lost():
    """Skip-Convolutions' reference forgets 50 changes of 0.002 below its threshold. Here a block that is computed
    at last holds what the dense op gives now, whatever was skipped before."""
    x, weight = channels_last(normal(1, 3, 8, 8)), normal(4, 3, 3, 3)
    out = channels_last(torch.zeros(1, 4, 8, 8))
    ops.conv2d(x, weight, None, BlockSet.all(1, 2, 2, 4), out, padding=1)
    for _ in range(50):
        x += 0.002
        ops.conv2d(x, weight, None, BlockSet.from_mask(torch.zeros(1, 2, 2, dtype=torch.bool), 4), out, padding=1)
    ops.conv2d(x, weight, None, BlockSet.all(1, 2, 2, 4), out, padding=1)
    assert_matches(out, F.conv2d(x.double(), weight.double(), padding=1), tolerance(27, x, weight))


@pytest.mark.parametrize(("n", "size"), [(2, (8, 8)), (1, (7, 9)), (3, (5, 11))])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_batches_odd_sizes_and_dilation(n, size, dilation):
    """Skip-Convolutions' reference asserts on a batch and breaks on odd sizes; SIGE's gather ignores dilation."""
    case = cases.conv2d(
        normal(n, 3, *size), normal(4, 3, 3, 3), padding=(dilation, dilation), dilation=(dilation, dilation)
    )
    check_contract(replace(case, blocks=BlockSet.all(n, -(-size[0] // 4), -(-size[1] // 4), 4)))


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "prelu"])
def test_every_activation_that_is_accepted_is_computed(activation):
    """SIGE accepts relu, sigmoid and tanh, and computes something else. What is not known here is refused."""
    slope = normal(4).clamp(-1, 1) if activation == "prelu" else None
    check_contract(cases.conv2d(normal(1, 3, 8, 8) * 4, normal(4, 3, 1, 1), activation=activation, slope=slope))


def test_corners_of_a_block_see_their_diagonal_neighbour():
    """SIGE dilates its mask by a plus and not by a box."""
    x, weight = channels_last(torch.zeros(1, 1, 8, 8)), torch.ones(1, 1, 3, 3)
    out, blocks = channels_last(torch.zeros(1, 1, 8, 8)), BlockSet.from_mask(torch.eye(2, dtype=torch.bool)[None], 4)
    x[0, 0, 3, 3] = 1.0
    ops.conv2d(x, weight, None, blocks, out, padding=1)
    assert out[0, 0, 4, 4] == 1.0


def test_no_phantom_blocks():
    """SIGE makes 25 blocks of 16 x 16 active pixels in blocks of 4; SBNet runs one block where none is active."""
    assert int(BlockSet.all(1, 4, 4, 4).count) == 16
    assert int(BlockSet.from_mask(torch.zeros(1, 4, 4, dtype=torch.bool), 4).count) == 0


def test_the_layout_of_the_input_is_not_misread():
    """SIGE's ops read channels-last memory as if it were not. Here the strides are read, or refused."""
    wide = channels_last(normal(1, 8, 10, 10))
    part = wide[:, 2:5, 1:9, 1:9]
    expected = cases.conv2d(part, normal(4, 3, 3, 3)).dense()
    out = channels_last(torch.zeros(1, 4, 6, 6))
    ops.conv2d(part, normal(4, 3, 3, 3), None, BlockSet.all(1, 1, 1, 6), out)
    assert_matches(out, expected, tolerance(27, part, normal(4, 3, 3, 3)))


def test_offsets_beyond_32_bits(tmp_path):
    """DeltaCNN's and SBNet's offsets have 32 and 16 bits. Here a row is 2**27 elements, and the block in the 18th."""
    rows, stride = 18, 2**27
    sparse_file = torch.from_file(str(tmp_path / "memory"), shared=True, size=rows * stride)
    x = torch.as_strided(sparse_file, (1, 2, rows, 4), (rows * stride, 1, stride, stride // 4))
    x[0, :, -1, -1] = torch.tensor([3.0, 4.0])
    out = channels_last(torch.zeros(1, 2, rows, 4))
    mask = torch.zeros(1, rows, 4, dtype=torch.bool)
    mask[0, -1, -1] = True
    ops.activation(x, BlockSet.from_mask(mask, 1), out, activation="relu")
    assert out[0, :, -1, -1].tolist() == [3.0, 4.0]


def test_bilinear_has_no_seams():
    """BlockCopy and SegBlocks resize block by block: 18 % of the pixels are wrong in blocks of 8."""
    case = cases.interpolate(normal(1, 4, 16, 16), (32, 32), mode="bilinear")
    check_contract(replace(case, blocks=BlockSet.all(1, 4, 4, 8)))


def test_a_transposed_convolution_has_no_seams():
    """BlockCopy computes it per block, without what the neighbours add."""
    case = cases.conv_transpose2d(normal(1, 4, 8, 8), normal(4, 4, 4, 4), stride=(2, 2), padding=(1, 1))
    check_contract(replace(case, blocks=BlockSet.all(1, 4, 4, 4)))


def test_max_pool_of_negative_values_at_the_border():
    """BlockCopy and SegBlocks pad with 0 instead of minus infinity."""
    case = cases.max_pool2d(-normal(1, 4, 8, 8).abs() - 1, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    assert case.dense().max() < 0
    check_contract(case)


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_average_pool_counts_its_padding(count_include_pad):
    """BlockCopy ignores the padding of an average pool."""
    geometry = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    check_contract(cases.avg_pool2d(normal(1, 4, 8, 8), **geometry, count_include_pad=count_include_pad))


def test_leaky_relu_has_one_slope():
    """DeltaCNN's first, dense frame uses 0.01 and every later one 0.1."""
    x, blocks = channels_last(normal(1, 4, 8, 8)), BlockSet.all(1, 1, 1, 8)
    for slope in (None, 0.1):
        for _ in range(2):
            out = ops.activation(x, blocks, torch.zeros_like(x), activation="leaky_relu", slope=slope)
            assert_identical(out, F.leaky_relu(x, 0.01 if slope is None else slope))


def test_two_networks_and_two_clips_do_not_interfere():
    """DeltaCNN keeps state in its classes. Here all state is in the planes: interleaved runs equal separate ones."""
    x = [channels_last(normal(1, 3, 8, 8) + i) for i in range(2)]
    weights = [normal(4, 3, 3, 3) + i for i in range(2)]
    blocks = BlockSet.from_mask(torch.eye(2, dtype=torch.bool)[None], 4)

    def fresh():
        return channels_last(torch.zeros(1, 4, 8, 8))

    alone = [ops.conv2d(x[i], weights[i], None, blocks, fresh(), padding=1) for i in range(2)]
    mixed = [fresh(), fresh()]
    for i in (0, 1, 0, 1, 1, 0):
        ops.conv2d(x[i], weights[i], None, blocks, mixed[i], padding=1)
    for together, separate in zip(mixed, alone, strict=True):
        assert_identical(together, separate)


def test_a_reset_is_complete():
    """DeltaCNN's leaves buffers of the clip before."""
    specs = [PlaneSpec("a", 3, 5, 7, border=2), PlaneSpec("b", 4, 5, 7)]
    state = FeatureCache(specs, streams=2)
    for name in ("a", "b"):
        state[name].fill_(7.0)
    state.frames[:] = [5, 6]
    state.reset()
    fresh = FeatureCache(specs, streams=2)
    assert state.frames == fresh.frames
    for name in ("a", "b"):
        assert_identical(state[name], fresh[name])


def test_skipped_pixels_hold_what_they_held():
    """DeltaCNN leaves them uninitialised, and user code reads garbage."""
    x, out = channels_last(normal(1, 3, 8, 8)), channels_last(normal(1, 4, 8, 8))
    kept = out.clone()
    ops.conv2d(x, normal(4, 3, 1, 1), None, BlockSet.from_mask(torch.zeros(1, 2, 2, dtype=torch.bool), 4), out)
    assert_identical(out, kept)


def test_the_order_of_blocks_is_defined_and_runs_repeat_bit_for_bit():
    """SBNet appends blocks by atomics, in an order of chance."""
    mask = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    blocks = BlockSet.from_mask(mask, 2)
    assert blocks.index.tolist() == mask.nonzero().tolist()
    check_independence(replace(cases.conv2d(normal(2, 3, 18, 14), normal(4, 3, 1, 1)), blocks=blocks))


@pytest.mark.parametrize("kind", ["empty", "single", "full", "border"])
@pytest.mark.parametrize("size", [(16, 16), (13, 15), (17, 9)])
@pytest.mark.parametrize("stride", [1, 2])
def test_masks_on_odd_sizes_and_odd_strides(kind, size, stride):
    """All: empty, single, full and border-only masks, odd sizes, stride 2 at odd offsets."""
    case = cases.conv2d(normal(1, 3, *size), normal(4, 3, 3, 3), stride=(stride, stride), padding=(1, 1))
    rows, cols = -(-case.out_shape[2] // 3), -(-case.out_shape[3] // 3)
    mask = torch.full((1, rows, cols), kind in ("full", "border"))
    if kind == "border":
        mask[:, 1:-1, 1:-1] = False
    if kind == "single":
        mask[0, 1, 1] = True
    check_contract(replace(case, blocks=BlockSet.from_mask(mask, 3)))
