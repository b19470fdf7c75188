"""The checks must be able to fail: each planted fault is caught by the contract, on a handful of fixed cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sparseblock import BlockSet, ops
from sparseblock.testing import (
    Case,
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


def sample(op: str, dtype: torch.dtype = torch.float32) -> Case:
    """An ordinary case: two images of 11 x 13 pixels in blocks of 4 x 5, some active, the last ones partial."""
    x = normal(2, 6, 11, 13).to(dtype)
    weight, bias, residual = normal(8, 6, 3, 3), normal(8), normal(2, 8, 11, 13).to(dtype)
    case = {
        "conv2d": lambda: cases.conv2d(x, weight, bias, residual, padding=(1, 1), activation="relu"),
        "max_pool2d": lambda: cases.max_pool2d(x, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)),
        "interpolate": lambda: cases.interpolate(x, mode="bilinear", size=(11, 13)),
        "add": lambda: cases.add(x, normal(2, 6, 13, 11).mT.to(dtype), activation="relu"),
    }[op]()
    mask = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0, -1, -1] = True
    return replace(case, blocks=BlockSet.from_mask(mask, (4, 5)))


def boxes(blocks, out):
    """(image, rows, columns) of each active block, clipped."""
    (height, width), (_, _, h, w) = blocks.block, out.shape
    for n, y, x in blocks.index[: int(blocks.count)].tolist():
        yield n, slice(y * height, min((y + 1) * height, h)), slice(x * width, min((x + 1) * width, w))


def drops_the_halo(x, blocks, out, **rest):
    """Each block from its own pixels only, as BlockCopy's bilinear resize and transposed convolution."""
    for n, rows, cols in boxes(blocks, out):
        own = torch.zeros_like(x)
        own[n, :, rows, cols] = x[n, :, rows, cols]
        result = channels_last(torch.zeros_like(out))
        ops.conv2d(x=own, blocks=blocks, out=result, **rest)
        out[n, :, rows, cols] = result[n, :, rows, cols]
    return out


def repeats_the_halo(x, blocks, out, **rest):
    """A neighbour that is skipped counts as zero, and not as what it holds."""
    own = torch.zeros_like(x)
    for n, rows, cols in boxes(blocks, out):
        own[n, :, rows, cols] = x[n, :, rows, cols]
    return ops.conv2d(x=own, blocks=blocks, out=out, **rest)


def is_off_by_one_block(x, blocks, out, **rest):
    index = blocks.index.clone()
    index[:, 2] = (index[:, 2] + 1) % blocks.grid[2]
    return ops.conv2d(x=x, blocks=replace(blocks, index=index), out=out, **rest)


def computes_every_image_from_the_first(x, blocks, out, **rest):
    return ops.conv2d(x=channels_last(x[:1].expand_as(x)), blocks=blocks, out=out, **rest)


def pads_on_both_sides_alike(padding, **rest):
    (top, bottom), (left, right) = padding
    return ops.conv2d(padding=((bottom, top), (right, left)), **rest)


def pads_with_zeros(padding_mode, **rest):
    return ops.conv2d(padding_mode="zeros", **rest)


def skips_the_bias(bias, **rest):
    return ops.conv2d(bias=None, **rest)


def adds_the_bias_twice(bias, **rest):
    return ops.conv2d(bias=bias * 2, **rest)


def forgets_the_residual(residual, **rest):
    return ops.conv2d(residual=None, **rest)


def activates_before_the_residual(residual, blocks, out, **rest):
    ops.conv2d(blocks=blocks, out=out, **rest)
    return ops.add(out, residual, blocks, out)


def multiplies_with_the_residual(combine, **rest):
    return ops.conv2d(combine="mul", **rest)


def takes_another_activation(activation, **rest):
    """One whose curve is near."""
    return ops.conv2d(activation="softplus", **rest)


def adds_to_what_was_there(blocks, out, **rest):
    """Accumulates, as Skip-Convolutions do on residuals."""
    before = out.clone()
    ops.conv2d(blocks=blocks, out=out, **rest)
    return ops.add(out, before, blocks, out)


def leaves_the_last_block(blocks, **rest):
    return ops.conv2d(blocks=replace(blocks, count=blocks.count - 1), **rest)


def leaves_partial_blocks(blocks, out, **rest):
    mask = blocks.to_mask()
    mask[:, -1] = False
    return ops.conv2d(blocks=BlockSet.from_mask(mask, blocks.block), out=out, **rest)


def runs_every_block(blocks, **rest):
    return ops.conv2d(blocks=BlockSet.all(*blocks.grid, blocks.block), **rest)


def ignores_the_count(blocks, **rest):
    """Runs block (0, 0, 0) where none is active, as SBNet."""
    first = BlockSet.from_index(torch.zeros(1, 3, dtype=torch.int32), blocks.grid, blocks.block)
    return ops.conv2d(blocks=blocks if int(blocks.count) else first, **rest)


def writes_whole_blocks(blocks, out, **rest):
    """Past the frame: one more row and column of partial blocks, where memory belongs to somebody else."""
    ops.conv2d(blocks=blocks, out=out, **rest)
    n, c, h, w = out.shape
    torch.as_strided(out, (n, c, h + 1, w + 1), out.stride(), out.storage_offset())[0, :, h, w] = 0.0
    return out


def reads_past_the_frame(x, padding, **rest):
    """Takes what lies around the frame in memory for its zero border."""
    n, c, h, w = x.shape
    start = x.storage_offset() - x.stride(2) - x.stride(3)
    wide = torch.as_strided(x, (n, c, h + 2, w + 2), x.stride(), start)
    return ops.conv2d(x=channels_last(wide), padding=0, **rest)


def loses_nan(x, **rest):
    """A maximum of which NaN is not the result, as max(v, 0) of the SSE instruction."""
    return ops.conv2d(x=x.nan_to_num(0.0), **rest)


def writes_its_input(x, **rest):
    ops.conv2d(x=x, **rest)
    x[0, 0, 0, 0] = 0.0
    return rest["out"]


def returns_a_copy(**rest):
    return ops.conv2d(**rest).clone()


def is_slightly_inexact(out, blocks, **rest):
    """Half the mantissa, as TF32 or bfloat16 would."""
    ops.conv2d(out=out, blocks=blocks, **rest)
    for n, rows, cols in boxes(blocks, out):
        out[n, :, rows, cols] = out[n, :, rows, cols].bfloat16().float()
    return out


CAUGHT_BY_THE_CONTRACT = [
    drops_the_halo,
    repeats_the_halo,
    is_off_by_one_block,
    computes_every_image_from_the_first,
    skips_the_bias,
    adds_the_bias_twice,
    forgets_the_residual,
    activates_before_the_residual,
    multiplies_with_the_residual,
    takes_another_activation,
    adds_to_what_was_there,
    leaves_the_last_block,
    leaves_partial_blocks,
    runs_every_block,
    writes_whole_blocks,
    reads_past_the_frame,
    writes_its_input,
    returns_a_copy,
    is_slightly_inexact,
]


def test_the_sound_op_passes():
    for op in ("conv2d", "max_pool2d", "interpolate", "add"):
        check_contract(sample(op))
        check_independence(sample(op))


@pytest.mark.parametrize("fault", CAUGHT_BY_THE_CONTRACT, ids=lambda fault: fault.__name__)
def test_the_contract_catches(fault):
    with pytest.raises(AssertionError):
        check_contract(replace(sample("conv2d"), call=fault))


def rounds_before_the_residual(x, residual, blocks, out, activation, **rest):
    ops.conv2d(x=x, blocks=blocks, out=out, **rest)
    return ops.add(out, residual, blocks, out, activation=activation)


def rounds_toward_zero(x, residual, blocks, out, weight, bias, **rest):
    wide = channels_last(out.float())
    ops.conv2d(channels_last(x.float()), weight, bias, blocks, wide, residual=channels_last(residual.float()), **rest)
    halves = (wide.view(torch.int32) >> 16 << 16).view(torch.float32).to(out.dtype)
    for n, rows, cols in boxes(blocks, out):
        out[n, :, rows, cols] = halves[n, :, rows, cols]
    return out


def rounds_the_weight(weight, **rest):
    return ops.conv2d(weight=weight.to(rest["x"].dtype), **rest)


@pytest.mark.parametrize("fault", [rounds_before_the_residual, rounds_toward_zero, rounds_the_weight])
def test_the_contract_catches_a_second_or_another_rounding(fault):
    case = sample("conv2d", torch.bfloat16)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


@pytest.mark.parametrize("fault", [pads_on_both_sides_alike, pads_with_zeros], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_the_contract_catches_a_wrong_padding(fault, mode):
    x, weight = normal(2, 6, 11, 13), normal(8, 6, 3, 3)
    case = cases.conv2d(x, weight, padding=((0, 2), (1, 1)), padding_mode=mode)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


def test_the_contract_catches_a_block_where_there_is_none():
    none = BlockSet.from_mask(torch.zeros(2, 3, 3, dtype=torch.bool), (4, 5))
    case = replace(sample("conv2d"), blocks=none)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=ignores_the_count))


def test_the_contract_catches_a_lost_nan():
    """A NaN that the dense op passes on must be passed on."""
    case = sample("conv2d")
    case.maps["x"][0, 3, 6, 7] = float("nan")
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=loses_nan))


def test_the_contract_catches_a_stale_input():
    """The plane of an earlier frame, kept by somebody who matched caches by the order of calls."""
    kept = []

    def stale(x, **rest):
        kept.append(x.clone())
        return ops.conv2d(x=channels_last(kept[0]), **rest)

    first, second = sample("conv2d"), sample("conv2d")
    second.maps["x"].neg_()
    check_contract(replace(first, call=stale))
    kept[1:] = []
    with pytest.raises(AssertionError):
        check_contract(replace(second, call=stale))


def test_the_contract_catches_a_zero_border_of_max_pool():
    def zero_border(x, padding, **rest):
        return ops.max_pool2d(channels_last(F.pad(x, (1, 1, 1, 1))), padding=0, **rest)

    case = sample("max_pool2d")
    case.maps["x"].sub_(10)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=zero_border))


def test_the_contract_catches_seams_of_a_resize():
    x = normal(1, 3, 8, 8)
    case = replace(cases.interpolate(x, (16, 16), mode="bilinear"), blocks=BlockSet.all(1, 2, 2, 8))
    check_contract(case)

    def per_block(x, blocks, out, **rest):
        for n, rows, cols in boxes(blocks, out):
            half = x[n : n + 1, :, rows.start // 2 : rows.stop // 2, cols.start // 2 : cols.stop // 2]
            out[n : n + 1, :, rows, cols] = F.interpolate(half, scale_factor=2, mode="bilinear")
        return out

    with pytest.raises(AssertionError):
        check_contract(replace(case, call=per_block))


def puts_factors_before_channels(x, upscale_factor, **rest):
    """Depth to space as TensorFlow orders it: channels within a pixel of the square."""
    n, c, h, w = x.shape
    reordered = x.reshape(n, upscale_factor**2, -1, h, w).transpose(1, 2).reshape(n, c, h, w)
    return ops.pixel_shuffle(channels_last(reordered), upscale_factor=upscale_factor, **rest)


def exchanges_rows_and_columns(x, downscale_factor, **rest):
    ops.pixel_unshuffle(x, downscale_factor=downscale_factor, **rest)
    out, r = rest["out"], downscale_factor
    for n, rows, cols in boxes(rest["blocks"], out):
        block = out[n, :, rows, cols]
        out[n, :, rows, cols] = block.unflatten(0, (-1, r, r)).transpose(1, 2).flatten(0, 2)
    return out


def shuffles_the_other_way(x, groups, **rest):
    return ops.channel_shuffle(x, groups=x.shape[1] // groups, **rest)


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (cases.pixel_shuffle(normal(2, 12, 5, 6), upscale_factor=2), puts_factors_before_channels),
        (cases.pixel_unshuffle(normal(2, 3, 10, 12), downscale_factor=2), exchanges_rows_and_columns),
        (cases.channel_shuffle(normal(2, 12, 5, 6), groups=3), shuffles_the_other_way),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_contract_catches_another_order(case, fault):
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


def first_block_in_the_list_differs(blocks, out, **rest):
    ops.conv2d(blocks=blocks, out=out, **rest)
    for n, rows, cols in list(boxes(blocks, out))[:1]:
        out[n, :, rows, cols] = torch.nextafter(out[n, :, rows, cols], torch.tensor(9.0))
    return out


def number_of_blocks_matters(blocks, out, **rest):
    ops.conv2d(blocks=blocks, out=out, **rest)
    if int(blocks.count) == len(blocks.to_mask().flatten()):
        out.copy_(torch.nextafter(out, torch.tensor(9.0)))
    return out


def number_of_threads_matters(out, **rest):
    ops.conv2d(out=out, **rest)
    if torch.get_num_threads() == 2:
        out.copy_(torch.nextafter(out, torch.tensor(9.0)))
    return out


@pytest.mark.parametrize(
    "fault",
    [first_block_in_the_list_differs, number_of_blocks_matters, number_of_threads_matters],
    ids=lambda fault: fault.__name__,
)
def test_independence_catches_one_unit_in_the_last_place(fault):
    with pytest.raises(AssertionError):
        check_independence(replace(sample("conv2d"), call=fault))


class TestMessages:
    """What a failed comparison says."""

    def test_values(self):
        expected = torch.zeros(2, 3)
        actual = expected.clone()
        actual[1, 0], actual[1, 2] = 0.5, -1.0
        with pytest.raises(
            AssertionError, match=r"^2 of 6 elements differ by more than 0\.1; first at \[1, 0\]: 0\.5 instead of 0\.0$"
        ):
            assert_matches(actual, expected, 0.1)

    def test_bits(self):
        with pytest.raises(
            AssertionError, match=r"^1 of 2 elements differ in their bits; first at \[1\]: -0\.0 instead of 0\.0$"
        ):
            assert_identical(torch.tensor([0.0, -0.0]), torch.zeros(2))

    def test_nan(self):
        with pytest.raises(AssertionError, match=r"^1 of 1 elements .* first at \[0\]: nan instead of 0\.0$"):
            assert_matches(torch.tensor([float("nan")]), torch.zeros(1), 0.1)
        assert_matches(torch.tensor([float("nan")]), torch.tensor([float("nan")]), 0.0)

    def test_halves_are_compared_after_one_rounding(self):
        """bfloat16 has 1 and 1.0078125; the middle is even to 1."""
        stored, above = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()
        middle = torch.tensor([1.00390625], dtype=torch.float64)
        assert_matches(stored, middle, 0.0)
        for wrong, value, allowed in ((above, middle, 0.0), (stored, middle + 2e-6, 1e-6)):
            with pytest.raises(AssertionError):
                assert_matches(wrong, value, allowed)
        assert_matches(above, middle, 1e-6)

    def test_shapes(self):
        with pytest.raises(AssertionError, match=r"^shapes differ: \[1\] and \[2\]$"):
            assert_matches(torch.zeros(1), torch.zeros(2), 0.0)

    def test_tolerance_follows_from_terms_and_magnitudes(self):
        eps = torch.finfo(torch.float32).eps
        assert tolerance(9, torch.tensor([-2.0]), torch.tensor([3.0]), addends=(torch.tensor([1.0]), None)) == 140 * eps
