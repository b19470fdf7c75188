"""Statistics of a whole map that are kept block by block: exact after any history, and faults that must show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sparseblock import BlockSet, ops
from sparseblock.backends.reference import global_avg_pool2d as reference
from sparseblock.backends.reference import group_norm
from sparseblock.testing import assert_identical, assert_matches, cases, channels_last, check_contract, tolerance

SIZE, CELL, GRID = (11, 13), (4, 5), (3, 3)
EVERYTHING = BlockSet.all(2, *GRID, CELL)
IMAGES = BlockSet.all(2, 1, 1, 1)


def normal(*shape: int) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return channels_last(x) if x.dim() == 4 else x


def history(frames: int = 6):
    """Maps of which only the active blocks change, and what is active."""
    generator, x = torch.Generator().manual_seed(7), normal(2, 6, *SIZE) + 30.0
    for i in range(frames):
        mask = torch.rand(2, *GRID, generator=generator) < (0.4 if i else 2.0)
        blocks = BlockSet.from_mask(mask, CELL)
        new = channels_last(torch.randn(x.shape, generator=generator) * 3.0 + 10.0 * i)
        x = ops.activation(new, blocks, x.clone())
        yield x, blocks


def test_statistics_of_a_changing_map_are_those_of_the_dense_map():
    means, moments = channels_last(torch.zeros(2, 6, *GRID)), channels_last(torch.zeros(2, 12, *GRID))
    mean, out = torch.zeros(2, 6, 1, 1), channels_last(torch.zeros(2, 6, *SIZE))
    weight, bias = normal(6), normal(6)
    for x, blocks in history():
        cells = blocks.with_block(1)
        ops.global_avg_pool2d(ops.block_moments(x, cells, means, cell=CELL), IMAGES, mean, size=SIZE, cell=CELL)
        # Cells are rounded once and the total once more.
        assert_matches(mean, x.double().mean((2, 3), keepdim=True), tolerance(1, x))
        ops.block_moments(x, cells, moments, cell=CELL, order=2)
        ops.group_norm(x, moments, weight, bias, EVERYTHING, out, num_groups=3, cell=CELL)
        dense = F.group_norm(x.double(), 3, weight.double(), bias.double())
        deviation = x.double().reshape(2, 3, -1).var(2, unbiased=False).min().sqrt()
        # A cell's mean is off by eps |x| at most, and so is that of the map, all of it over the deviation.
        assert_matches(out, dense, tolerance(3, x / deviation, weight, addends=(bias,)))


def test_bits_do_not_depend_on_the_history():
    kept = channels_last(torch.zeros(2, 12, *GRID))
    for x, blocks in history():
        ops.block_moments(x, blocks.with_block(1), kept, cell=CELL, order=2)
        anew = ops.block_moments(x, EVERYTHING.with_block(1), torch.empty_like(kept), cell=CELL, order=2)
        assert_identical(kept, anew)


def test_infinity_reaches_the_mean():
    x = normal(1, 3, *SIZE)
    x[0, 1, 5, 5] = float("inf")
    moments, mean = channels_last(torch.zeros(1, 3, *GRID)), torch.zeros(1, 3, 1, 1)
    ops.block_moments(x, BlockSet.all(1, *GRID, 1), moments, cell=CELL)
    ops.global_avg_pool2d(moments, BlockSet.all(1, 1, 1, 1), mean, size=SIZE, cell=CELL)
    assert mean[0, 1] == float("inf") and mean[0, [0, 2]].isfinite().all()


def counts_the_halo(x, cell, **rest):
    """A pixel on each side belongs to its neighbour."""
    ops.block_moments(x=x, cell=cell, **rest)
    wide = F.avg_pool2d(x, (cell[0] + 2, cell[1] + 2), cell, 1, ceil_mode=True, count_include_pad=False)
    out = rest["out"]
    return ops.activation(channels_last(wide[:, :, : out.shape[2], : out.shape[3]]), rest["blocks"], out)


def divides_partial_cells_by_whole_ones(x, cell, blocks, out, **_):
    rows, cols = out.shape[2] * cell[0] - x.shape[2], out.shape[3] * cell[1] - x.shape[3]
    return ops.avg_pool2d(channels_last(F.pad(x, (0, cols, 0, rows))), blocks, out, kernel_size=cell)


def sums_in_single_precision(x, cell, blocks, out, **_):
    """E[x^2] - E[x]^2 where the mean is large."""
    means = [F.avg_pool2d(v, cell, ceil_mode=True) for v in (x, x * x)]
    count = F.avg_pool2d(torch.ones_like(x), cell, ceil_mode=True, divisor_override=1)
    dense = torch.cat([means[0], (means[1] - means[0] * means[0]) * count], 1)
    return ops.activation(channels_last(dense), blocks, out)


@pytest.mark.parametrize("fault", [counts_the_halo, divides_partial_cells_by_whole_ones])
def test_faulty_means_are_noticed(fault):
    case = replace(cases.block_moments(normal(2, 6, *SIZE), cell=CELL), blocks=EVERYTHING.with_block(1))
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


def test_cancellation_is_noticed():
    x = normal(2, 6, *SIZE)
    case = cases.block_moments(x + 1e4, cell=CELL, order=2)
    # The deviations are of the size of x, whatever its offset.
    case = replace(case, blocks=EVERYTHING.with_block(1), tolerance=tolerance(1, x + 1e4) * 20)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=sums_in_single_precision))


def weighs_cells_alike(moments, out, **_):
    return out.copy_(moments.mean((2, 3), keepdim=True))


def leaves_the_last_cell(moments, out, **rest):
    moments = moments.clone()
    moments[:, :, -1, -1] = 0.0
    return ops.global_avg_pool2d(moments=moments, out=out, **rest)


@pytest.mark.parametrize("fault", [weighs_cells_alike, leaves_the_last_cell])
def test_faulty_totals_are_noticed(fault):
    case = replace(cases.global_avg_pool2d(normal(2, 6, *GRID), size=SIZE, cell=CELL), blocks=IMAGES)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


def forgets_that_means_differ(moments, **rest):
    """The variance within cells only."""
    means, deviations = moments.chunk(2, 1)
    within = channels_last(torch.cat([means.mean((2, 3), keepdim=True).expand_as(means), deviations], 1))
    return ops.group_norm(moments=within, **rest)


def normalizes_every_channel_alone(num_groups, x, **rest):
    return ops.group_norm(num_groups=x.shape[1], x=x, **rest)


@pytest.mark.parametrize("fault", [forgets_that_means_differ, normalizes_every_channel_alone])
def test_faulty_norms_are_noticed(fault):
    x = normal(2, 6, *SIZE)
    moments = channels_last(torch.cat([normal(2, 6, *GRID), normal(2, 6, *GRID).square()], 1))
    case = replace(cases.group_norm(x, moments, normal(6), normal(6), num_groups=3, cell=CELL), blocks=EVERYTHING)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


def test_a_stale_cell_is_noticed():
    """A block that changed without its cell being computed anew."""
    frames = list(history(2))
    kept = ops.block_moments(frames[0][0], EVERYTHING.with_block(1), channels_last(torch.zeros(2, 6, *GRID)), cell=CELL)
    x, blocks = frames[1]
    case = replace(cases.block_moments(x, cell=CELL), blocks=blocks.with_block(1))

    def leaves_one_block(blocks, out, **rest):
        return ops.block_moments(blocks=replace(blocks, count=blocks.count - 1), out=out, **rest)

    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=leaves_one_block))
    mean = torch.zeros(2, 6, 1, 1)
    ops.global_avg_pool2d(kept, IMAGES, mean, size=SIZE, cell=CELL)
    with pytest.raises(AssertionError):
        assert_matches(mean, x.double().mean((2, 3), keepdim=True), tolerance(1, x))


def takes_the_difference_of_norms(x, y, blocks, out, **rest):
    ops.block_norm(x, blocks, out, **rest)
    other = ops.block_norm(y, blocks, torch.zeros_like(out), **rest)
    return ops.add(out, -other, blocks, out)


def counts_the_neighbours(x, y, blocks, out, cell, norm):
    largest = F.max_pool2d((x - y).abs().amax(1, keepdim=True), (cell[0] + 2, cell[1] + 2), cell, 1, ceil_mode=True)
    return ops.activation(channels_last(largest[:, :, : out.shape[2], : out.shape[3]]), blocks, out)


@pytest.mark.parametrize(("norm", "fault"), [("l1", takes_the_difference_of_norms), ("max", counts_the_neighbours)])
def test_faulty_norms_of_blocks_are_noticed(norm, fault):
    x, y = normal(2, 6, *SIZE), normal(2, 6, *SIZE).flip(3).contiguous(memory_format=torch.channels_last)
    case = replace(cases.block_norm(x, y, cell=CELL, norm=norm), blocks=EVERYTHING.with_block(1))
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


@pytest.mark.parametrize("name", ["cpu", "cuda", "triton"])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_norms_of_halves_are_those_of_their_values(name, norm, there):
    for dtype in (torch.bfloat16, torch.float16):
        x, y = normal(2, 6, *SIZE).to(dtype), normal(2, 6, *SIZE).to(dtype).flip(1)
        results = []
        for maps in ((x, y), (x.float(), y.float())):
            maps = dict(zip("xy", map(channels_last, maps), strict=True))
            out = torch.zeros(2, 1, *GRID)
            there(ops.block_norm)(**maps, blocks=EVERYTHING.with_block(1), out=out, cell=CELL, norm=norm)
            results.append(out)
        assert_identical(*results)


@pytest.mark.parametrize("name", ["cpu", "cuda", "triton"])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_nan_gives_a_norm_of_nan(name, norm, there):
    x, out = normal(2, 40, *SIZE), torch.zeros(2, 1, *GRID)
    for place in ((0, 0, 0, 0), (0, 39, 3, 4), (1, 17, 5, 7)):
        x[place] = float("nan")
    there(ops.block_norm)(x=x, blocks=EVERYTHING.with_block(1), out=out, cell=CELL, norm=norm)
    assert out.isnan().nonzero().tolist() == [[0, 0, 0, 0], [1, 0, 1, 1]]


def test_the_reference_counts_pixels_where_the_map_is():
    moments = torch.empty(2, 6, *GRID, device="meta")
    assert reference.mean(moments, SIZE, CELL).device.type == "meta"
    assert {part.device.type for part in group_norm.statistics(moments, SIZE, CELL, 3)} == {"meta"}
