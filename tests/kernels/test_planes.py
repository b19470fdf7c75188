"""Bits that may not depend on how planes lie in memory, on the threads, or on which path the size takes."""

from __future__ import annotations

import itertools
from ctypes import byref

import pytest
import torch
from native_conv import NativeConv, plane, with_border

from sparseblock import BlockSet
from sparseblock.activations import EPS, TINY, bound
from sparseblock.backends.cpu import native
from sparseblock.backends.reference.masked import activate, combined
from sparseblock.testing import assert_identical, assert_matches, tolerance, winograd_tolerance

CANARY = 777.0


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def checkerboard(n: int, h: int, w: int, block: int) -> BlockSet:
    rows, cols = -(-h // block), -(-w // block)
    places = torch.arange(rows)[:, None] + torch.arange(cols) + torch.arange(n)[:, None, None]
    return BlockSet.from_mask(places % 2 == 0, block)


@pytest.mark.parametrize(
    ("c", "k", "kernel", "stride", "dilation", "block"),
    [
        *[(3, 20, 7, 2, 1, 8), (12, 12, 3, 1, 4, 5), (40, 33, 3, 1, 1, 4), (300, 40, 3, 2, 1, 2), (8, 70, 1, 1, 1, 16)],
        *[(300, 40, 3, 1, 24, 8), (12, 20, 3, 2, 36, 3), (9, 12, 5, 1, 6, 16), (3, 8, 7, 1, 5, 8)],  # taps outside
    ],
)
def test_border_threads_and_other_blocks_change_no_bit(isa, c, k, kernel, stride, dilation, block):
    padding = dilation * (kernel // 2)
    conv, x, bias = NativeConv(normal(k, c, kernel, kernel), stride, padding, dilation), normal(2, c, 33, 41), normal(k)
    h, w = (33 - 1) // stride + 1, (41 - 1) // stride + 1
    everything = conv(with_border(x, padding), plane(2, k, h, w, 0)[0], border=padding, bias=bias)
    active = checkerboard(2, h, w, block)
    where = active.to_mask().repeat_interleave(block, 1).repeat_interleave(block, 2)[:, None, :h, :w]
    for border in {0, 1, padding, padding + 3}:
        for threads in (1, 2, 5):
            out = conv(with_border(x, border), plane(2, k, h, w, 0, CANARY)[0], active, border, threads, bias=bias)
            assert_identical(out, torch.where(where, everything, CANARY))


@pytest.mark.parametrize("groups", [1, 12])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 1, 36, 36), (3, 2, 4, 5), (5, 1, 9, 3)])
def test_taps_outside_of_the_frame_are_left_out(isa, groups, kernel, stride, padding, dilation):
    """With dilation not even the zeros of the border are read: there may be anything."""
    conv = NativeConv(normal(24, 12 // groups, kernel, kernel), stride, padding, dilation, groups)
    h, w = ((side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in (33, 41))
    x, (inside, around) = normal(1, 12, 33, 41), plane(1, 12, 33, 41, padding, float("nan"))
    inside.copy_(x)
    out = conv(inside, plane(1, 24, h, w, 0)[0], border=padding)
    assert_identical(out, conv(with_border(x, padding), plane(1, 24, h, w, 0)[0], border=padding))
    assert bool(around.isnan().any())
    expected = torch.nn.functional.conv2d(
        x.double(), conv.weight.double(), stride=stride, padding=padding, dilation=dilation, groups=groups
    ).relu()
    assert_matches(out, expected, tolerance(12 // groups * kernel**2, x, conv.weight))


def test_a_slice_of_channels_is_a_plane(isa):
    conv, x = NativeConv(normal(10, 6, 3, 3), padding=1), normal(1, 20, 12, 9)
    wide_in, wide_out = with_border(x, 1), plane(1, 30, 12, 9, 0, CANARY)[0]
    conv(wide_in[:, 5:11], wide_out[:, 7:17], border=1)
    assert_identical(wide_out[:, 7:17], conv(with_border(x[:, 5:11], 1), plane(1, 10, 12, 9, 0)[0], border=1))
    assert bool((wide_out[:, :7] == CANARY).all() and (wide_out[:, 17:] == CANARY).all())


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("blocks", [None, checkerboard(1, 360, 370, 64)])
def test_planes_larger_than_the_caches(isa, blocks, spare):
    """Input fetched ahead, output stored past the caches: same bits as small runs, nothing beyond the frame.

    `spare` channels that the convolution does not write move its pixels off the vectors' alignment.
    """
    conv, x = NativeConv(normal(64, 64, 1, 1)), with_border(normal(1, 64, 360, 370), 1)
    wide, memory = plane(1, 64 + spare, 360, 370, 1, CANARY)
    out = wide[:, spare:]
    conv(x, out, blocks, border=1, threads=2)
    mask = torch.ones(1, 6, 6, dtype=torch.bool) if blocks is None else blocks.to_mask()
    for row in range(6):
        for col in range(6):
            place = (..., slice(64 * row, 64 * row + 64), slice(64 * col, 64 * col + 64))
            tile = x[place]
            small = conv(tile, plane(*tile.shape, 0)[0]) if mask[0, row, col] else torch.full_like(tile, CANARY)
            assert_identical(out[place], small)
    out.fill_(CANARY)
    assert bool((memory == CANARY).all())


def test_residual_in_place(isa):
    conv, x, residual = NativeConv(normal(21, 4, 3, 3), padding=1), normal(1, 4, 10, 10), normal(1, 21, 10, 10)
    x, shared = with_border(x, 1), with_border(residual, 0)
    expected = conv(x, plane(1, 21, 10, 10, 0)[0], border=1, residual=with_border(residual, 2))
    assert_identical(conv(x, shared, border=1, residual=shared), expected)


@pytest.mark.parametrize(
    "algorithm", [name for name in native.ALGORITHMS if not name.startswith("bf16")]
)  # those on floats
@pytest.mark.parametrize("activation", [None, "relu", "clamp", "prelu", "silu", "elu"])
@pytest.mark.parametrize("k", [16, 21])
def test_epilogue(isa, activation, k, algorithm):
    """activation((sum + bias + residual) * scale + shift), each part present and absent; the product likewise."""
    x, weight, residual = normal(1, 4, 5, 6), normal(k, 4, 3, 3), normal(1, k, 5, 6)
    vectors = {name: normal(k).roll(i) for i, name in enumerate(("bias", "scale", "shift"))}
    slope = normal(k).abs() if activation in ("prelu", "elu") else None
    bounds, of = (0.0, 6.0) if activation == "clamp" else None, bound(activation, slope)
    for left_out, combine in itertools.product((None, *vectors), ("add", "mul")):
        used = {name: vector for name, vector in vectors.items() if name != left_out}
        fused = {"activation": activation, "slope": slope, "bounds": bounds}
        out = plane(1, k, 5, 6, 0)[0]
        NativeConv(weight, padding=1, algorithm=algorithm)(
            with_border(x, 0), out, residual=with_border(residual, 0), combine=combine, **fused, **used
        )
        bias, scale, shift = (used[name].double()[:, None, None] if name in used else None for name in vectors)
        expected = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1)
        expected = combined(expected + (0 if bias is None else bias), residual, combine)
        expected = expected * (1 if scale is None else scale) + (0 if shift is None else shift)
        expected = activate(expected, activation, None if slope is None else slope.double(), bounds)
        widest = 1 if scale is None else float(scale.abs().max())
        addends = (bias, residual, shift)
        allowed = tolerance(39, x, weight, addends=addends)
        if algorithm != "direct":
            allowed = winograd_tolerance(algorithm, x, weight, addends=addends)
        allowed *= widest * (max(1.0, float(residual.abs().max())) if combine == "mul" else 1.0)
        assert_matches(out, expected, of.lipschitz * allowed + TINY, None, EPS * of.relative)


@pytest.mark.parametrize("c", [3, 4])
def test_a_frame_becomes_channels_last(isa, c):
    frame, blocks = normal(2, c, 37, 29), checkerboard(2, 37, 29, 8)
    out, memory = plane(2, c, 37, 29, 2, CANARY)
    lib, listed = native.lib(), native.blocks_of(blocks.index, blocks.count, blocks.block)
    lib.sb_pointwise_run(
        byref(native.epilogue_of()), byref(native.plane_of(frame)), None, byref(listed), byref(native.plane_of(out)), 2
    )
    where = blocks.to_mask().repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None, :37, :29]
    assert_identical(out.contiguous(), torch.where(where, frame, CANARY))
    out.fill_(CANARY)
    assert bool((memory == CANARY).all())


@pytest.mark.parametrize("c", [1, 3, 5, 8])
def test_rows_without_gaps(isa, c):
    """Pixels that follow each other without a gap run as one long vector: not beyond the block."""
    x, y = with_border(normal(1, c, 9, 11), 0), with_border(normal(1, c, 11, 9).transpose(2, 3), 0)
    blocks, out = checkerboard(1, 9, 11, 3), plane(1, c, 9, 11, 0, CANARY)[0]
    listed = native.blocks_of(blocks.index, blocks.count, blocks.block)
    planes = [byref(native.plane_of(t)) for t in (x, y, out)]
    native.lib().sb_pointwise_run(
        byref(native.epilogue_of(activation="relu")), planes[0], planes[1], byref(listed), planes[2], 1
    )
    where = blocks.to_mask().repeat_interleave(3, 1).repeat_interleave(3, 2)[:, None, :9, :11]
    assert_identical(out, torch.where(where, (x + y).relu(), CANARY))


def test_blocks_from_mask():
    mask = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    index, count = torch.full((mask.numel(), 3), -1, dtype=torch.int32), torch.empty(1, dtype=torch.int32)
    native.lib().sb_blocks_from_mask(mask.data_ptr(), *mask.shape, index.data_ptr(), count.data_ptr())
    expected = mask.nonzero().int()
    assert torch.equal(index[: int(count)], expected)
    assert bool((index[len(expected) :] == -1).all())


@pytest.mark.parametrize("algorithm", ["winograd_2x2", "winograd_4x4"])
@pytest.mark.parametrize(
    ("c", "k", "block", "dilation"),
    [
        (40, 33, 4, 1),
        (12, 70, 5, 1),
        (64, 64, 16, 1),
        (40, 33, 8, 2),
        (12, 20, 11, 3),
        (64, 40, 16, 4),
        (20, 16, 4, 12),
    ],
)
def test_winograd_border_threads_and_other_blocks_change_no_bit(isa, c, k, block, dilation, algorithm):
    conv = NativeConv(normal(k, c, 3, 3), padding=dilation, dilation=dilation, algorithm=algorithm)
    x, bias = normal(2, c, 32, 41), normal(k)
    every = BlockSet.all(2, -(-32 // block), -(-41 // block), block)
    everything = conv(with_border(x, dilation), plane(2, k, 32, 41, 0)[0], every, border=dilation, bias=bias)
    active = checkerboard(2, 32, 41, block)
    where = active.to_mask().repeat_interleave(block, 1).repeat_interleave(block, 2)[:, None, :32, :41]
    for border in (0, 1, dilation + 3):
        for threads in (1, 2, 5):
            out = conv(with_border(x, border), plane(2, k, 32, 41, 0, CANARY)[0], active, border, threads, bias=bias)
            assert_identical(out, torch.where(where, everything, CANARY))


@pytest.mark.parametrize("algorithm", ["winograd_2x2", "winograd_4x4"])
@pytest.mark.parametrize("dilation", [1, 3, 5])
def test_winograd_without_blocks_is_one_block(isa, algorithm, dilation):
    conv = NativeConv(normal(20, 8, 3, 3), padding=dilation, dilation=dilation, algorithm=algorithm)
    x = with_border(normal(1, 8, 22, 27), 1)
    whole = conv(x, plane(1, 20, 22, 27, 0)[0], BlockSet.all(1, 1, 1, 27), border=1)
    assert_identical(conv(x, plane(1, 20, 22, 27, 0)[0], border=1), whole)
