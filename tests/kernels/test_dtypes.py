"""What is stored in 16 bits: the conversions of every instruction set, value by value, and what mixes them."""

from __future__ import annotations

from ctypes import byref

import pytest
import torch
from native_conv import NativeConv, plane, with_border

from sparseblock import BlockSet, SparseBlockError, ops
from sparseblock.backends.cpu import native
from sparseblock.testing import assert_identical

HALVES = [torch.bfloat16, torch.float16]
EVERY_HALF = torch.arange(2**16).to(torch.int16)


def converted(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`x` [n, c, h, w] by the native copy."""
    out = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    planes = byref(native.plane_of(x)), byref(native.plane_of(out))
    native.lib().sb_pointwise_run(byref(native.epilogue_of()), planes[0], None, None, planes[1], 1)
    return out


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_is_widened_exactly(isa, dtype):
    halves = EVERY_HALF.view(dtype).reshape(1, 1, 256, 256)
    halves = torch.where(halves.isnan(), 0.0, halves)
    assert_identical(converted(halves, torch.float32), halves.float())


@pytest.mark.parametrize("dtype", HALVES)
def test_floats_are_rounded_to_nearest_even(isa, dtype):
    """Every half, what lies just beside it, every tie between two halves, and what lies just beside that."""
    halves = EVERY_HALF.view(dtype).float().view(torch.int32).long()
    tie = 1 << 15 if dtype == torch.bfloat16 else 1 << 12
    near = torch.cat([halves + offset for offset in (-1, 0, 1, tie - 1, tie, tie + 1)])
    scales = torch.randn(2**14, generator=torch.Generator().manual_seed(0)) * torch.logspace(-45, 38, 2**14)
    floats = torch.cat([near.to(torch.int32).view(torch.float32), scales])
    floats = torch.where(floats.isnan(), 0.0, floats).reshape(1, 1, 256, -1)
    assert_identical(converted(floats, dtype), floats.to(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_nan_stays_nan(isa, dtype):
    patterns = torch.tensor([0x7F800001, 0x7F807FFF, 0x7FC00000, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    assert bool(converted(patterns.view(torch.float32).reshape(1, 1, 1, -1), dtype).isnan().all())
    halves = EVERY_HALF.view(dtype).reshape(1, 1, 256, 256)
    assert torch.equal(converted(halves, torch.float32).isnan(), halves.isnan())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("c", [1, 3, 4])
def test_a_float_frame_becomes_a_channels_last_half(isa, dtype, c):
    frame = torch.randn(2, c, 13, 37, generator=torch.Generator().manual_seed(c))
    assert_identical(converted(frame, dtype), frame.to(dtype).contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (1, 3, 1), (3, 2, 1), (3, 1, 9), (5, 3, 2)])
def test_a_half_convolution_is_that_of_its_floats_rounded(isa, dtype, kernel, stride, dilation):
    """The bits of the float32 kernel on the same values, rounded: sums have one order whatever the layout."""
    generator = torch.Generator().manual_seed(kernel)
    padding = dilation * (kernel // 2)
    conv = NativeConv(torch.randn(21, 10, kernel, kernel, generator=generator), stride, padding, dilation)
    x = torch.randn(1, 10, 24, 70, generator=generator).to(dtype)
    size = [(side - 1) // stride + 1 for side in (24, 70)]
    exact = conv(with_border(x.float(), padding), plane(1, 21, *size, 0)[0], border=padding)
    out = plane(1, 21, *size, 0)[0].to(dtype).contiguous(memory_format=torch.channels_last)
    assert_identical(conv(x.contiguous(memory_format=torch.channels_last), out), exact.to(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_planes_larger_than_the_caches(isa, dtype):
    """Output stored past the caches: the bits of small runs."""
    generator = torch.Generator().manual_seed(0)
    conv, x = NativeConv(torch.randn(64, 8, 1, 1, generator=generator)), torch.randn(1, 8, 520, 530).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    out = conv(x, torch.empty(1, 64, 520, 530, dtype=dtype, memory_format=torch.channels_last), threads=2)
    for rows in range(0, 520, 130):
        part = x[:, :, rows : rows + 130]
        small = torch.empty(1, 64, 130, 530, dtype=dtype, memory_format=torch.channels_last)
        assert_identical(out[:, :, rows : rows + 130], conv(part, small))


@pytest.mark.parametrize("dtype", HALVES)
def test_moments_of_halves_are_floats(isa, dtype):
    """Those of the same values in float32; and no others are taken."""
    x = torch.randn(1, 18, 9, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    blocks, moments = BlockSet.all(1, 3, 3, 1), torch.zeros(2, 36, 3, 3).contiguous(memory_format=torch.channels_last)
    wide = x.float(memory_format=torch.channels_last)
    for row, source in enumerate((x, wide)):
        ops.block_moments(source, blocks, moments[row : row + 1], cell=4, order=2)
    assert_identical(moments[0], moments[1])
    narrow = moments[:1].to(dtype).contiguous(memory_format=torch.channels_last)
    message = f"block_moments: out is {dtype} but x is {dtype}; out must be torch.float32"
    with pytest.raises(SparseBlockError, match=f"^{message}$"):
        ops.block_moments(x, blocks, narrow, cell=4, order=2)
    mean = torch.zeros(1, 18, 1, 1, dtype=dtype)
    ops.global_avg_pool2d(moments[:1, :18], BlockSet.all(1, 1, 1, 1), mean, size=(9, 10), cell=4)
    assert_identical(mean, wide.double().mean((2, 3), keepdim=True).to(dtype))
