"""Hypothesis strategies: arbitrary geometries, blocks and values for each op.

Sizes are small, because what breaks kernels is edges: windows larger than the frame, blocks larger than the frame,
partial blocks, channel counts around the width of a vector, groups of one channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from hypothesis import assume
from hypothesis import strategies as st

from sparseblock.blocks import BlockSet
from sparseblock.grid import cell_extent, conv_extent, conv_transpose_extent, interpolate_extent, pool_extent
from sparseblock.ops import _check
from sparseblock.testing import cases
from sparseblock.testing.case import Case
from sparseblock.testing.poison import Guard

CHANNELS = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40])
SIDES = st.integers(1, 14)
ACTIVATIONS = tuple(name for name in _check.ACTIVATIONS if name is not None)
PAD_MODES = ("reflect", "replicate", "circular")
MASKS = ("none", "one", "all", "border", "last", "random")


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    """(vertical, horizontal), each from least to most."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


def guards() -> st.SearchStrategy[Guard]:
    """Tensors without gaps, with gaps between rows, and slices of channels."""
    return st.builds(Guard, st.sampled_from([0, 1, 2]), st.sampled_from([0, 0, 3]))


def generators() -> st.SearchStrategy[torch.Generator]:
    """A seeded source of values."""
    return st.integers(0, 2**31 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


@st.composite
def arbitrary_blocks(draw: st.DrawFn, n: int, height: int, width: int) -> BlockSet:
    """Active blocks of `n` images of height x width pixels: none, one, all, the border, the last, or any.

    A block may be larger than the image. The list may be longer than its count; what follows is another block.
    """
    block = draw(st.tuples(st.integers(1, height + 1), st.integers(1, width + 1)))
    rows, cols = -(-height // block[0]), -(-width // block[1])
    mask = torch.zeros(n, rows, cols, dtype=torch.bool)
    kind = draw(st.sampled_from(MASKS))
    if kind == "one":
        mask.view(-1)[draw(st.integers(0, mask.numel() - 1))] = True
    elif kind == "all":
        mask.fill_(True)
    elif kind == "border":
        mask.fill_(True)
        mask[:, 1:-1, 1:-1] = False
    elif kind == "last":
        mask[:, -1, -1] = True
    elif kind == "random":
        mask = torch.rand(mask.shape, generator=draw(generators())) < draw(st.sampled_from([0.2, 0.5, 0.8]))
    blocks = BlockSet.from_mask(mask, block)
    if draw(st.booleans()):
        past = torch.tensor([[n - 1, rows - 1, cols - 1]], dtype=torch.int32)
        return BlockSet(torch.cat([blocks.index, past]), blocks.count, blocks.grid, block)
    return blocks


DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])  # of feature maps


def parameters(dtype: torch.dtype) -> st.SearchStrategy[torch.dtype]:
    """What weights and vectors beside maps of `dtype` may be."""
    return st.sampled_from([torch.float32, dtype])


def values(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal values, some of them zeros of either sign."""
    x = torch.randn(shape, generator=generator)
    dice = torch.rand(shape, generator=generator)
    return torch.where(dice < 0.05, 0.0, torch.where(dice > 0.95, -0.0, x)).to(dtype)


def anywhere(x: torch.Tensor, past: int) -> torch.Tensor:
    """`x` in memory that begins `past` elements after an aligned address."""
    memory = torch.empty(x.numel() + past, dtype=x.dtype)
    return memory[past:].view(x.shape).copy_(x)


def to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Finite float32 values rounded to the nearest TF32, ties away from zero."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def any_bits(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Any value but NaN: infinities, subnormals, zeros of either sign."""
    bits = torch.randint(-(2**31), 2**31 - 1, shape, generator=generator, dtype=torch.int64)
    x = bits.to({2: torch.int16, 4: torch.int32}[dtype.itemsize]).view(dtype)
    return torch.where(x.isnan(), -0.0, x)


@st.composite
def activations(draw: st.DrawFn, channels: int, generator: torch.Generator) -> dict[str, object]:
    """The keywords `activation`, `slope` and `bounds`; slopes of at most 1."""
    name = draw(st.sampled_from([None, "prelu", *ACTIVATIONS]))
    slope, bounds = None, None
    if name == "clamp":
        bounds = draw(st.sampled_from([(-0.5, 0.75), (0.25, float("inf")), (-float("inf"), -0.25), (1.0, 1.0)]))
    elif name in ("leaky_relu", "elu"):
        slope = draw(st.sampled_from([None, 0.0, 0.1, -0.5]))
    elif name == "prelu":
        vector = torch.rand(draw(st.sampled_from([1, channels])), generator=generator) * 2 - 1
        slope = draw(st.sampled_from([vector, 0.25]))
    return {"activation": name, "slope": slope, "bounds": bounds}


@st.composite
def second_inputs(
    draw: st.DrawFn, generator: torch.Generator, n: int, c: int, h: int, w: int, dtype: torch.dtype
) -> torch.Tensor:
    """Values of that shape, or of one pixel or one channel that counts for all."""
    shape = draw(st.sampled_from([(n, c, h, w), (n, c, h, w), (n, c, 1, 1), (n, 1, h, w)]))
    return values(generator, *shape, dtype=dtype)


@st.composite
def with_blocks(draw: st.DrawFn, case: Case) -> Case:
    """`case` with arbitrary blocks."""
    return replace(case, blocks=draw(arbitrary_blocks(case.out_shape[0], *case.out_shape[2:])))


@st.composite
def _padding(draw: st.DrawFn, size: tuple[int, int], mode: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)), as much as the mode can fill; often alike on both sides."""
    around = []
    for side in size:
        most = {"reflect": side - 1, "circular": side}.get(mode, 4)
        before = draw(st.integers(0, min(most, 4)))
        around.append((before, draw(st.sampled_from([before, draw(st.integers(0, min(most, 4)))]))))
    return tuple(around)


@st.composite
def pad(draw: st.DrawFn) -> Case:
    """Every mode, any bits; constants that are infinite too."""
    size, mode = draw(st.tuples(SIDES, SIDES)), draw(st.sampled_from(["constant", *PAD_MODES]))
    x = any_bits(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *size, dtype=draw(DTYPES))
    value = draw(st.sampled_from([0.0, -1.5, float("-inf")])) if mode == "constant" else 0.0
    return draw(with_blocks(cases.pad(x, padding=draw(_padding(size, mode)), mode=mode, value=value)))


@st.composite
def pixel_shuffle(draw: st.DrawFn) -> Case:
    """Any factor, any bits."""
    factor, size = draw(st.integers(1, 4)), draw(pairs(1, 6))
    c = draw(CHANNELS) * factor**2
    x = any_bits(draw(generators()), draw(st.integers(1, 2)), c, *size, dtype=draw(DTYPES))
    return draw(with_blocks(cases.pixel_shuffle(x, upscale_factor=factor)))


@st.composite
def pixel_unshuffle(draw: st.DrawFn) -> Case:
    """Any factor, any bits."""
    factor, size = draw(st.integers(1, 4)), draw(pairs(1, 6))
    sides = [side * factor for side in size]
    x = any_bits(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *sides, dtype=draw(DTYPES))
    return draw(with_blocks(cases.pixel_unshuffle(x, downscale_factor=factor)))


@st.composite
def channel_shuffle(draw: st.DrawFn) -> Case:
    """Any groups, any bits."""
    groups = draw(st.integers(1, 5))
    c = groups * draw(CHANNELS)
    x = any_bits(draw(generators()), draw(st.integers(1, 2)), c, draw(SIDES), draw(SIDES), dtype=draw(DTYPES))
    return draw(with_blocks(cases.channel_shuffle(x, groups=groups)))


@st.composite
def conv2d(draw: st.DrawFn) -> Case:
    """Any kernel size, stride, padding, dilation and groups, also depthwise; bias, residual, activation or none."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 16, 17]))
    c = groups * draw(CHANNELS if groups == 1 else st.sampled_from([1, 1, 2, 5]))
    k = groups * draw(CHANNELS if groups == 1 else st.sampled_from([1, 1, 2, 5]))
    dtype = draw(DTYPES)
    return _any_conv2d(draw, groups, c, k, dtype, draw(parameters(dtype)), "direct")


@st.composite
def bf16_conv2d(draw: st.DrawFn, algorithm: str) -> Case:
    """A convolution of bfloat16 maps by "bf16_pairs" or "bf16_amx", of any geometry. Weights are of bfloat16, so
    that the exact result is that of the weights which are used.
    """
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    if algorithm == "bf16_pairs":
        per_group = 2 * draw(st.integers(1, 20))
    else:
        per_group = draw(st.sampled_from([32, 64]) | st.integers(1 if groups == 1 else 2, 40))
    c, k = groups * per_group, groups * draw(CHANNELS)
    return _any_conv2d(draw, groups, c, k, torch.bfloat16, torch.bfloat16, algorithm)


@st.composite
def tf32_conv2d(draw: st.DrawFn) -> Case:
    """A convolution of float32 maps by TF32 products, of any geometry. Maps and weights are of TF32, so that products
    are exact.
    """
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, k = groups * draw(CHANNELS), groups * draw(CHANNELS)
    return _any_conv2d(draw, groups, c, k, torch.float32, torch.float32, "tf32")


def _any_conv2d(
    draw: st.DrawFn, groups: int, c: int, k: int, dtype: torch.dtype, parameter: torch.dtype, algorithm: str
) -> Case:
    """Maps of `dtype`, weight and bias of `parameter`."""
    generator = draw(generators())
    size, kernel = draw(st.tuples(SIDES, SIDES)), draw(pairs(1, 4))
    geometry = {"stride": draw(pairs(1, 3)), "dilation": draw(pairs(1, 3))}
    mode = draw(st.sampled_from(["zeros", "zeros", *PAD_MODES]))
    padding = draw(_padding(size, mode))
    padded = [side + sum(around) for side, around in zip(size, padding, strict=True)]
    axes = zip(padded, kernel, geometry["stride"], (0, 0), geometry["dilation"], strict=True)
    extent = [conv_extent(*axis) for axis in axes]
    assume(min(extent) >= 1)
    geometry |= {"padding": padding, "padding_mode": mode}
    n = draw(st.integers(1, 2))
    x, weight = values(generator, n, c, *size, dtype=dtype), values(generator, k, c // groups, *kernel, dtype=parameter)
    if algorithm == "tf32":
        x, weight = to_tf32(x), to_tf32(weight)
    weight = anywhere(weight, draw(st.sampled_from([0, 1])))
    bias = values(generator, k, dtype=parameter) if draw(st.booleans()) else None
    residual = draw(second_inputs(generator, n, k, *extent, dtype=dtype)) if draw(st.booleans()) else None
    fused = draw(activations(k, generator)) | {"combine": draw(st.sampled_from(["add", "mul"])), "algorithm": algorithm}
    return draw(with_blocks(cases.conv2d(x, weight, bias, residual, **geometry, groups=groups, **fused)))


@st.composite
def winograd_conv2d(draw: st.DrawFn) -> Case:
    """A convolution that Winograd's algorithms can compute, by one of them; any sides, padding, dilation and blocks."""
    generator = draw(generators())
    c, k, padding, dilation = draw(CHANNELS), draw(CHANNELS), draw(pairs(0, 4)), draw(st.just((1, 1)) | pairs(1, 5))
    size = [draw(st.integers(max(1, 2 * d + 1 - 2 * p), 14)) for d, p in zip(dilation, padding, strict=True)]
    extent = [conv_extent(*axis) for axis in zip(size, (3, 3), (1, 1), padding, dilation, strict=True)]
    n, dtype = draw(st.integers(1, 2)), draw(DTYPES)
    parameter = draw(parameters(dtype))
    x, weight = values(generator, n, c, *size, dtype=dtype), values(generator, k, c, 3, 3, dtype=parameter)
    bias = values(generator, k, dtype=parameter) if draw(st.booleans()) else None
    residual = values(generator, n, k, *extent, dtype=dtype) if draw(st.booleans()) else None
    fused = draw(activations(k, generator)) | {"algorithm": draw(st.sampled_from(["winograd_2x2", "winograd_4x4"]))}
    return draw(with_blocks(cases.conv2d(x, weight, bias, residual, padding=padding, dilation=dilation, **fused)))


@st.composite
def conv_transpose2d(draw: st.DrawFn) -> Case:
    """Any kernel size, stride, padding, output padding, dilation and groups; bias, residual, activation or none."""
    generator = draw(generators())
    groups = draw(st.sampled_from([1, 1, 2, 3, 16]))
    per_group = CHANNELS if groups == 1 else st.sampled_from([1, 1, 2, 5])
    c, k = groups * draw(per_group), groups * draw(per_group)
    size, kernel = draw(pairs(1, 8)), draw(pairs(1, 4))
    geometry = {"stride": draw(pairs(1, 3)), "padding": draw(pairs(0, 3)), "dilation": draw(pairs(1, 2))}
    limits = zip(geometry["stride"], geometry["dilation"], strict=True)
    geometry["output_padding"] = tuple(draw(st.integers(0, max(limit) - 1)) for limit in limits)
    extent = [conv_transpose_extent(*axis) for axis in zip(size, kernel, *geometry.values(), strict=True)]
    assume(min(extent) >= 1)
    n, dtype = draw(st.integers(1, 2)), draw(DTYPES)
    parameter = draw(parameters(dtype))
    x, weight = values(generator, n, c, *size, dtype=dtype), values(generator, c, k // groups, *kernel, dtype=parameter)
    weight = anywhere(weight, draw(st.sampled_from([0, 1])))
    bias = values(generator, k, dtype=parameter) if draw(st.booleans()) else None
    residual = draw(second_inputs(generator, n, k, *extent, dtype=dtype)) if draw(st.booleans()) else None
    fused = draw(activations(k, generator)) | {"combine": draw(st.sampled_from(["add", "mul"]))}
    return draw(with_blocks(cases.conv_transpose2d(x, weight, bias, residual, **geometry, groups=groups, **fused)))


@st.composite
def max_pool2d(draw: st.DrawFn) -> Case:
    """Any window; values far below zero too, where padding must count as minus infinity."""
    size, geometry = draw(_window(pairs(1, 3)))
    x = values(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *size, dtype=draw(DTYPES))
    return draw(with_blocks(cases.max_pool2d(x - draw(st.sampled_from([0.0, 10.0])), **geometry)))


@st.composite
def avg_pool2d(draw: st.DrawFn) -> Case:
    """Any window and every way to count its elements."""
    size, geometry = draw(_window(st.just((1, 1))))
    del geometry["dilation"]
    x = values(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *size, dtype=draw(DTYPES))
    counts = {"count_include_pad": draw(st.booleans()), "divisor_override": draw(st.sampled_from([None, None, 1, 7]))}
    return draw(with_blocks(cases.avg_pool2d(x, **geometry, **counts)))


@st.composite
def _adaptive(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int]]:
    shape = draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES)
    return values(draw(generators()), *shape, dtype=draw(DTYPES)), draw(pairs(1, 16))


@st.composite
def adaptive_avg_pool2d(draw: st.DrawFn) -> Case:
    """Fewer and more outputs than inputs."""
    return draw(with_blocks(cases.adaptive_avg_pool2d(*draw(_adaptive()))))


@st.composite
def adaptive_max_pool2d(draw: st.DrawFn) -> Case:
    """Fewer and more outputs than inputs; values below zero."""
    x, size = draw(_adaptive())
    return draw(with_blocks(cases.adaptive_max_pool2d(x - draw(st.sampled_from([0.0, 10.0])), size)))


@st.composite
def _window(draw: st.DrawFn, dilations: st.SearchStrategy[tuple[int, int]]) -> tuple[tuple[int, int], dict]:
    size, kernel, ceil_mode = draw(st.tuples(SIDES, SIDES)), draw(pairs(1, 4)), draw(st.booleans())
    padding = tuple(draw(st.integers(0, side // 2)) for side in kernel)
    geometry = {"kernel_size": kernel, "stride": draw(pairs(1, 3)), "padding": padding, "dilation": draw(dilations)}
    assume(min(pool_extent(*axis, ceil_mode) for axis in zip(size, *geometry.values(), strict=True)) >= 1)
    return size, {**geometry, "ceil_mode": ceil_mode}


@st.composite
def interpolate(draw: st.DrawFn) -> Case:
    """Nearest and bilinear, larger and smaller, by size and by factor, with aligned corners and without."""
    sides, mode = draw(st.tuples(SIDES, SIDES)), draw(st.sampled_from(["nearest", "bilinear"]))
    size, factors = draw(pairs(1, 24)), None
    if draw(st.booleans()):
        factors = draw(st.tuples(*[st.sampled_from([2.0, 3.0, 4.0, 0.5, 1.0, 1.3, 0.7, 2.6])] * 2))
        assume(min(interpolate_extent(*axis) for axis in zip(sides, factors, strict=True)) >= 1)
    fill = any_bits if mode == "nearest" else values
    x = fill(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *sides, dtype=draw(DTYPES))
    corners = mode == "bilinear" and draw(st.booleans())
    return draw(with_blocks(cases.interpolate(x, size, mode=mode, align_corners=corners, scale_factor=factors)))


@st.composite
def _pointwise(draw: st.DrawFn) -> tuple[Callable[..., torch.Tensor], int, dict[str, object]]:
    """What makes a map of one shape and dtype with `values` or `any_bits`, its channels, and the activation."""
    shape, generator = (draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES)), draw(generators())
    dtype = draw(DTYPES)
    return lambda fill: fill(generator, *shape, dtype=dtype), shape[1], draw(activations(shape[1], generator))


@st.composite
def add(draw: st.DrawFn) -> Case:
    """Sums with any activation."""
    make, _, fused = draw(_pointwise())
    x = make(values)
    return draw(with_blocks(cases.add(x, draw(second_inputs(draw(generators()), *x.shape, dtype=x.dtype)), **fused)))


@st.composite
def mul(draw: st.DrawFn) -> Case:
    """Products with any activation, with a map and with gates of pixels and channels."""
    make, _, fused = draw(_pointwise())
    x = make(values)
    return draw(with_blocks(cases.mul(x, draw(second_inputs(draw(generators()), *x.shape, dtype=x.dtype)), **fused)))


@st.composite
def activation(draw: st.DrawFn) -> Case:
    """Any activation alone."""
    make, _, fused = draw(_pointwise())
    return draw(with_blocks(cases.activation(make(any_bits if fused["activation"] is None else values), **fused)))


@st.composite
def affine(draw: st.DrawFn) -> Case:
    """Scale and shift with any activation."""
    make, channels, fused = draw(_pointwise())
    x, generator = make(values), draw(generators())
    scale, shift = (values(generator, channels, dtype=draw(parameters(x.dtype))) for _ in range(2))
    return draw(with_blocks(cases.affine(x, scale, shift, **fused)))


@st.composite
def cat(draw: st.DrawFn) -> Case:
    """One to four parts of any bits."""
    n, h, w = draw(st.integers(1, 2)), draw(SIDES), draw(SIDES)
    generator, dtype = draw(generators()), draw(DTYPES)
    channels = draw(st.lists(CHANNELS, min_size=1, max_size=4))
    return draw(with_blocks(cases.cat(*(any_bits(generator, n, c, h, w, dtype=dtype) for c in channels))))


@st.composite
def _cells(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Size of a map, of a cell, and of the map in cells; cells may be larger than the map."""
    size = draw(st.tuples(SIDES, SIDES))
    cell = tuple(draw(st.integers(1, side + 2)) for side in size)
    return size, cell, tuple(cell_extent(*axis) for axis in zip(size, cell, strict=True))


@st.composite
def block_moments(draw: st.DrawFn) -> Case:
    """Means and deviations of any cells, also far from zero."""
    size, cell, _ = draw(_cells())
    x = values(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *size)
    offset, order = draw(st.sampled_from([0.0, 100.0])), draw(st.integers(1, 2))
    return draw(with_blocks(cases.block_moments(x + offset, cell=cell, order=order)))


@st.composite
def block_norm(draw: st.DrawFn) -> Case:
    """Any norm of any cells, of one map or of the difference of two."""
    size, cell, _ = draw(_cells())
    shape, generator = (draw(st.integers(1, 2)), draw(CHANNELS), *size), draw(generators())
    maps = [values(generator, *shape) for _ in range(draw(st.integers(1, 2)))]
    return draw(with_blocks(cases.block_norm(*maps, cell=cell, norm=draw(st.sampled_from(["l1", "l2", "max"])))))


@st.composite
def global_avg_pool2d(draw: st.DrawFn) -> Case:
    """Any moments, of any cells."""
    size, cell, extent = draw(_cells())
    moments = values(draw(generators()), draw(st.integers(1, 2)), draw(CHANNELS), *extent)
    return draw(with_blocks(cases.global_avg_pool2d(moments, size=size, cell=cell)))


@st.composite
def group_norm(draw: st.DrawFn) -> Case:
    """Any moments, groups of one channel to all; weight, bias, activation or none."""
    (size, cell, extent), n, generator = draw(_cells()), draw(st.integers(1, 2)), draw(generators())
    groups = draw(st.sampled_from([1, 2, 3, 16, 17]))
    c = groups * draw(st.sampled_from([1, 1, 2, 5, 16]))
    means, deviations = (values(generator, n, c, *extent) for _ in range(2))
    dtype = draw(DTYPES)
    vectors = [values(generator, c, dtype=draw(parameters(dtype))) if draw(st.booleans()) else None for _ in range(2)]
    fused = {"num_groups": groups, "cell": cell, **draw(activations(c, generator))}
    moments = torch.cat([means, deviations.square()], 1)
    return draw(with_blocks(cases.group_norm(values(generator, n, c, *size, dtype=dtype), moments, *vectors, **fused)))


@st.composite
def softmax(draw: st.DrawFn) -> Case:
    """Values near each other and far apart, also minus infinity beside others."""
    shape, generator = (draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES)), draw(generators())
    x = values(generator, *shape) * draw(st.sampled_from([1.0, 30.0])) + draw(st.sampled_from([0.0, 100.0]))
    if draw(st.booleans()):
        x[:, 1:][torch.rand(x[:, 1:].shape, generator=generator) < 0.3] = -torch.inf
    return draw(with_blocks(cases.softmax(x.to(draw(DTYPES)))))


@st.composite
def normalize(draw: st.DrawFn) -> Case:
    """Any length, none too; eps that counts and that does not."""
    shape, generator = (draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES)), draw(generators())
    x = values(generator, *shape) * (torch.rand(1, 1, *shape[2:], generator=generator) > 0.1)
    return draw(with_blocks(cases.normalize(x.to(draw(DTYPES)), eps=draw(st.sampled_from([1e-12, 0.5])))))


@st.composite
def layer_norm(draw: st.DrawFn) -> Case:
    """Channels near zero and far from it; weight, bias, activation or none."""
    make, channels, fused = draw(_pointwise())
    x, generator = make(values) + draw(st.sampled_from([0.0, 100.0])), draw(generators())
    vectors = [
        values(generator, channels, dtype=draw(parameters(x.dtype))) if draw(st.booleans()) else None for _ in range(2)
    ]
    return draw(with_blocks(cases.layer_norm(x, *vectors, eps=draw(st.sampled_from([1e-5, 0.1])), **fused)))


# One strategy per op that obeys the contract as it stands; gather and scatter have a packed side.
CASES = {
    "activation": activation,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "adaptive_max_pool2d": adaptive_max_pool2d,
    "add": add,
    "affine": affine,
    "avg_pool2d": avg_pool2d,
    "block_moments": block_moments,
    "block_norm": block_norm,
    "cat": cat,
    "channel_shuffle": channel_shuffle,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "global_avg_pool2d": global_avg_pool2d,
    "group_norm": group_norm,
    "interpolate": interpolate,
    "layer_norm": layer_norm,
    "max_pool2d": max_pool2d,
    "mul": mul,
    "normalize": normalize,
    "pad": pad,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "softmax": softmax,
}
