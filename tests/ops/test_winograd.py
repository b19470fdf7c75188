"""conv2d by Winograd: the contract, the bound of its rounding errors, and planted faults that both must catch."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from sparseblock import BlockSet
from sparseblock.algorithm import ALGORITHMS
from sparseblock.testing import (
    cases,
    channels_last,
    check_contract,
    check_in_place,
    check_independence,
    strategies,
    tolerance,
    winograd,
    winograd_tolerance,
)

WINOGRAD = [name for name, tile in ALGORITHMS.items() if tile]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def blocks(case, *block: int, density: float = 0.5):
    """`case` on a random half of its blocks."""
    n, _, h, w = case.out_shape
    mask = torch.rand(n, -(-h // block[0]), -(-w // block[1]), generator=torch.Generator().manual_seed(1)) < density
    return replace(case, blocks=BlockSet.from_mask(mask, block))


@given(strategies.winograd_conv2d(), strategies.guards())
def test_active_blocks_are_dense_and_the_rest_keeps_its_bits(case, guard):
    check_contract(case, guard)


@given(strategies.winograd_conv2d())
def test_a_block_depends_on_nothing_but_its_input(case):
    check_independence(case)


@given(strategies.winograd_conv2d().filter(lambda case: "residual" in case.maps))
def test_in_place(case):
    check_in_place(case, "residual")


EDGES = {
    "sums longer than a panel of weights": ((1, 4200, 4, 5), 17, (2, 2), (1, 1)),
    "several chunks, ragged": ((1, 64, 61, 67), 48, (16, 24), (1, 1)),
    "few tiles, many units": ((1, 64, 8, 8), 320, (4, 4), (1, 1)),
    "one tile": ((1, 40, 3, 4), 33, (4, 4), (1, 1)),
    "many small blocks in a chunk": ((2, 48, 20, 24), 64, (2, 2), (1, 1)),
    "blocks no multiple of the tile": ((2, 12, 31, 29), 20, (7, 10), (1, 1)),
    "columns": ((1, 9, 40, 3), 8, (11, 1), (1, 1)),
    "whole phases": ((1, 40, 32, 48), 33, (8, 16), (2, 4)),
    "phases of unequal size, several chunks": ((1, 64, 61, 67), 48, (17, 23), (3, 2)),
    "blocks smaller than the dilation": ((2, 17, 20, 23), 20, (4, 5), (12, 6)),
    "dilation larger than the frame": ((1, 9, 11, 10), 8, (8, 4), (24, 36)),
}


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_the_kernel(edge, algorithm):
    shape, k, block, dilation = EDGES[edge]
    weight, window = normal(k, shape[1], 3, 3), {"padding": dilation, "dilation": dilation}
    case = cases.conv2d(normal(*shape), weight, normal(k), **window, algorithm=algorithm)
    for active in (case, blocks(case, *block)):
        check_contract(active)
        check_independence(active)


@pytest.mark.parametrize("m", [2, 4])
def test_minimal_filtering_is_the_convolution(m):
    """The matrices that the bound comes from, in float64."""
    at, g, bt = winograd.transforms(m)
    d, taps = normal(m + 2).double(), normal(3).double()
    expected = torch.stack([(d[i : i + 3] * taps).sum() for i in range(m)])
    torch.testing.assert_close(at @ ((g @ taps) * (bt @ d)), expected, rtol=0, atol=64 * torch.finfo(torch.float64).eps)


def test_the_bound_follows_from_the_transforms():
    """F(2, 3) by hand: rows of A^T (1 1 1 0) and (0 1 -1 1), squared norms of G (1 3/4 3/4 1) and of B^T (2 2 2 2)."""
    assert winograd.amplification(2) == 1 * 2 + 0.75 * 2 + 0.75 * 2
    x, weight = torch.full((1, 7, 2, 2), 2.0), torch.full((1, 7, 3, 3), -3.0)
    assert winograd_tolerance("winograd_2x2", x, weight) == tolerance(7 + 16, x, weight * 5)


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("channels", [8, 64, 512])
def test_errors_grow_no_faster_than_the_direct_sum(algorithm, channels):
    """In the mean: F(2x2) is more accurate than the direct sum, F(4x4) within 3 times of it."""
    x, weight = normal(1, channels, 24, 24), normal(32, channels, 3, 3)
    errors = []
    for name in ("direct", algorithm):
        case = cases.conv2d(x, weight, padding=(1, 1), algorithm=name)
        out = case.run({"x": channels_last(x)}, case.blocks, channels_last(torch.zeros(case.out_shape)))
        errors.append(float((out - case.dense()).square().mean().sqrt()))
    assert errors[1] < {"winograd_2x2": 1, "winograd_4x4": 3}[algorithm] * errors[0]


def by_tiles(x, weight, algorithm, padding, dilation, blocks, out, *, matrices=None, up=0, clip=True, aside=0, **_):
    """Winograd tile by tile in float32, with faults on demand: other matrices, tiles that start `up` rows above their
    phase, inputs that are not clipped, phases but the first that read `aside` columns to the right."""
    m, (dy, dx) = ALGORITHMS[algorithm], dilation
    at, g, bt = (matrix.float() for matrix in matrices or winograd.transforms(m))
    u = torch.einsum("fa,kcab,gb->fgck", g, weight, g)
    (height, width), (_, _, h, w) = blocks.block, out.shape
    x = F.pad(x, (padding[1], padding[1] + m * dx + aside, padding[0] + up * dy, padding[0] + m * dy))
    for n, row, col in blocks.index[: int(blocks.count)].tolist():
        bottom, right = min((row + 1) * height, h), min((col + 1) * width, w)
        for py, px in itertools.product(range(min(dy, bottom - row * height)), range(min(dx, right - col * width))):
            y0, x0 = row * height + py, col * width + px
            source, phase = x[n, :, y0::dy, x0 + (aside if px else 0) :: dx], out[n, :, y0:bottom:dy, x0:right:dx]
            for top, left in itertools.product(range(-up, phase.shape[1], m), range(0, phase.shape[2], m)):
                rows, cols = min(m, phase.shape[1] - top), min(m, phase.shape[2] - left)
                d = source[:, top + up : top + up + m + 2, left : left + m + 2]
                if clip:
                    d = F.pad(d[:, : rows + 2, : cols + 2], (0, m - cols, 0, m - rows))
                v = torch.einsum("fa,cab,gb->fgc", bt, d, bt)
                y = torch.einsum("if,fgk,jg->kij", at, torch.einsum("fgc,fgck->fgk", v, u), at)
                above = max(-top, 0)
                phase[:, top + above : top + rows, left : left + cols] = y[:, above:rows, :cols]
    return out


def sample(algorithm: str, dilation: tuple[int, int]):
    x, weight = normal(2, 24, 19, 21), normal(16, 24, 3, 3)
    return blocks(cases.conv2d(x, weight, padding=dilation, dilation=dilation, algorithm=algorithm), 6, 7)


def wrong_by(position: int, factor: float):
    """The transforms with one entry of one matrix off."""

    def matrices(m):
        changed = [matrix.clone() for matrix in winograd.transforms(m)]
        changed[position][1, 1] *= factor
        return changed

    return matrices


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
class TestPlantedFaults:
    """A model of the kernel passes; with a fault it does not."""

    def test_the_model_itself_passes(self, algorithm, dilation):
        check_contract(replace(sample(algorithm, dilation), call=by_tiles))

    @pytest.mark.parametrize("position", range(3))
    def test_a_transform_off_by_a_thousandth(self, algorithm, dilation, position):
        matrices = wrong_by(position, 1.001)(ALGORITHMS[algorithm])
        with pytest.raises(AssertionError):
            check_contract(replace(sample(algorithm, dilation), call=lambda **a: by_tiles(**a, matrices=matrices)))

    def test_weights_rounded_to_half_precision(self, algorithm, dilation):
        def call(weight, **rest):
            return by_tiles(weight=weight.half().float(), **rest)

        with pytest.raises(AssertionError):
            check_contract(replace(sample(algorithm, dilation), call=call))

    def test_tiles_that_read_beyond_their_block(self, algorithm, dilation):
        with pytest.raises(AssertionError):
            check_contract(replace(sample(algorithm, dilation), call=lambda **a: by_tiles(**a, clip=False)))

    def test_tiles_that_depend_on_the_other_blocks(self, algorithm, dilation):
        """Their grid starts one row higher when every block is active."""

        def call(blocks, **rest):
            return by_tiles(blocks=blocks, up=int(blocks.to_mask().all()), **rest)

        with pytest.raises(AssertionError):
            check_independence(replace(sample(algorithm, dilation), call=call))

    def test_inputs_rounded_to_bfloat16(self, algorithm, dilation):
        def call(x, **rest):
            return by_tiles(x=x.bfloat16().float(), **rest)

        with pytest.raises(AssertionError):
            check_contract(replace(sample(algorithm, dilation), call=call))


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("dilation", [(1, 2), (3, 2)])
def test_planted_phases_that_read_their_neighbours_pixels(algorithm, dilation):
    with pytest.raises(AssertionError):
        check_contract(replace(sample(algorithm, dilation), call=lambda **a: by_tiles(**a, aside=1)))
