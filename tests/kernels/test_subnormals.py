"""Convolutions and element-wise arithmetic count subnormal numbers as zero, on every instruction set and by every
algorithm; what moves or selects values keeps them, and so does everybody else's arithmetic.
"""

from __future__ import annotations

from ctypes import byref

import pytest
import torch
from native_conv import NativeConv, plane

from sparseblock.activations import TINY
from sparseblock.backends.cpu import native
from sparseblock.testing import assert_identical

FLOAT32 = ("direct", "winograd_2x2", "winograd_4x4")


# Of the input's and the weights' normal numbers. Beside 1e30 what a subnormal factor adds is a share of the sum.
SCALES = [(1e30, 3e-38), (3e-38, 1e30)]
SHAPES = [  # algorithm, c, k, kernel, stride, groups
    *[(name, 12, 36, 3, 1, 1) for name in FLOAT32],
    *[("direct", 3, 20, 7, 2, 1), ("direct", 36, 36, 3, 1, 36), ("direct", 32, 48, 1, 1, 1)],
]


def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """Many of 3e-38 are subnormal."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * scale


def zeroed(x: torch.Tensor) -> torch.Tensor:
    """`x` with zeros of the same sign in place of subnormals."""
    return torch.where(x.abs() < TINY, torch.zeros_like(x).copysign(x), x)


def channels_last(x: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def check_counted_as_zero(dtype, scales, algorithm, c, k, kernel=3, stride=1, groups=1) -> None:
    """The bits of the convolution of zeros in their place."""
    x = channels_last(normal(1, c, 24, 40, scale=scales[0]), dtype)
    weight = normal(k, c // groups, kernel, kernel, scale=scales[1]).to(dtype).float()  # as some algorithms round it
    size, outs = [(side - 1) // stride + 1 for side in (24, 40)], []
    for same in (torch.clone, zeroed):
        conv = NativeConv(same(weight), stride, kernel // 2, 1, groups, algorithm)
        outs.append(conv(same(x), channels_last(torch.zeros(1, k, *size), dtype), threads=2))
    assert_identical(*outs)
    assert bool(outs[0].any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_operands_count_as_zero(isa, dtype, scales, shape):
    check_counted_as_zero(dtype, scales, *shape)


@pytest.mark.algorithm("bf16_pairs")
@pytest.mark.parametrize("scales", SCALES)
def test_operands_of_pairs_count_as_zero(scales):
    check_counted_as_zero(torch.bfloat16, scales, "bf16_pairs", 12, 36)


@pytest.mark.algorithm("bf16_amx")
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(("c", "kernel"), [(12, 3), (32, 1)])
def test_operands_of_tiles_count_as_zero(scales, c, kernel):
    check_counted_as_zero(torch.bfloat16, scales, "bf16_amx", c, 36, kernel)


@pytest.mark.parametrize("algorithm", FLOAT32)
def test_results_count_as_zero(isa, algorithm):
    conv = NativeConv(torch.full((20, 4, 3, 3), 1e-20), padding=1, algorithm=algorithm)
    x, residual, bias = (
        channels_last(torch.full((1, 4, 9, 8), 1e-20)),
        torch.full((1, 20, 9, 8), 1e-39),
        torch.full((20,), 1e-39),
    )
    out = conv(x, plane(1, 20, 9, 8, 0, 1.0)[0], residual=channels_last(residual), bias=bias)
    assert_identical(out, torch.zeros_like(out))


SMALL = torch.full((1, 20, 9, 8), 1e-39)
ONES, ZEROS = torch.ones(20), torch.zeros(20)


def pointwise(x: torch.Tensor, residual: torch.Tensor | None = None, **epilogue) -> torch.Tensor:
    x, out = channels_last(x), channels_last(torch.ones_like(x))
    other = None if residual is None else channels_last(residual)
    planes = [None if t is None else byref(native.plane_of(t)) for t in (x, other, out)]
    native.lib().sb_pointwise_run(byref(native.epilogue_of(**epilogue)), *planes[:2], None, planes[2], 2)
    return out


@pytest.mark.parametrize(
    "arguments",
    [
        {"residual": SMALL},
        {"residual": torch.full_like(SMALL, 1e20), "combine": "mul"},
        {"scale": ONES * 4, "shift": ZEROS},
        {"scale": ONES, "shift": ZEROS + 1e-39, "activation": "prelu", "slope": ONES},
    ],
)
def test_element_wise_arithmetic_counts_them_as_zero(isa, arguments):
    assert_identical(pointwise(SMALL, **arguments), torch.zeros_like(SMALL))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_what_moves_or_selects_values_keeps_them(isa, activation):
    assert_identical(pointwise(SMALL, activation=activation), SMALL)


def test_float16_has_subnormals_of_its_own(isa):
    """They are normal numbers of float32, and count."""
    x = channels_last(torch.arange(1024).view(1, 1, 32, 32) * 2.0**-24, torch.float16)
    out = NativeConv(torch.full((1, 1, 1, 1), 3.0))(x, torch.zeros_like(x))
    assert_identical(out, (x.float() * 3.0).half())


@pytest.mark.parametrize("scales", SCALES)
def test_gradients_count_them_as_zero(isa, scales):
    maps = [channels_last(normal(1, c, 9, 8, scale=scale)) for c, scale in zip((20, 36), scales, strict=True)]
    conv = native.Conv2d(20, 36, 1, 3, 3, 1, 1, 1, 1, 1, 1, 0)
    found = []
    for same in (torch.clone, zeroed):
        x, grad_out, grad = same(maps[0]), same(maps[1]), torch.empty(36, 3, 3, 20)
        planes = byref(native.plane_of(x)), byref(native.plane_of(grad_out))
        native.lib().sb_conv2d_weight_grad_run(byref(conv), *planes, None, grad.data_ptr(), None, 2)
        found.append(grad)
    assert_identical(*found)
    assert bool(found[0].any())


def test_other_arithmetic_keeps_them(isa):
    """On this thread, and on those that torch shares with the kernels."""
    conv = NativeConv(torch.ones(20, 4, 3, 3), padding=1)
    conv(channels_last(torch.ones(1, 4, 64, 64)), plane(1, 20, 64, 64, 0)[0], threads=2)
    small = torch.full((1 << 20,), 1e-39)
    assert bool((small * 1.5 > 0).all())
