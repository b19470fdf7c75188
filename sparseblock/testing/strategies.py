"""Hypothesis strategies: arbitrary geometries, blocks and values for each op.

Sizes are small, because what breaks kernels is edges: windows larger than the frame, blocks larger than the frame,
partial blocks, channel counts around the width of a vector, groups of one channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st

from sparseblock import ops
from sparseblock.blocks import BlockSet
from sparseblock.grid import (
    conv_extent,
    conv_transpose_extent,
    interpolate_extent,
    pool_extent,
)
from sparseblock.testing.case import Case
from sparseblock.testing.compare import tolerance
from sparseblock.testing.poison import Guard

Matrix = torch.Tensor
CHANNELS = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40])
SIDES = st.integers(1, 14)
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


def values(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Normal values, some of them zeros of either sign."""
    x = torch.randn(shape, generator=generator)
    dice = torch.rand(shape, generator=generator)
    return torch.where(dice < 0.05, 0.0, torch.where(dice > 0.95, -0.0, x))


def any_bits(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Any float32 but NaN: infinities, subnormals, zeros of either sign."""
    bits = torch.randint(-(2**31), 2**31 - 1, shape, generator=generator, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    return torch.where(x.isnan(), -0.0, x)


@st.composite
def activations(draw: st.DrawFn, channels: int, generator: torch.Generator) -> dict[str, object]:
    """The keywords `activation` and `slope`; slopes of at most 1."""
    name = draw(st.sampled_from([None, "relu", "relu6", "leaky_relu", "prelu"]))
    keywords: dict[str, object] = {"activation": name}
    if name == "leaky_relu":
        keywords["slope"] = draw(st.sampled_from([None, 0.0, 0.1, -0.5]))
    elif name == "prelu":
        slope = torch.rand(draw(st.sampled_from([1, channels])), generator=generator) * 2 - 1
        keywords["slope"] = draw(st.sampled_from([slope, 0.25]))
    return keywords


def window_reads(out: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Matrix:
    """bool [out, size]: output o reads o * stride - padding + r * dilation."""
    reach = torch.arange(out)[:, None, None] * stride - padding + torch.arange(kernel)[None, :, None] * dilation
    return (reach == torch.arange(size)).any(1)


def transposed_reads(out: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Matrix:
    """bool [out, size]: input i reaches i * stride - padding + r * dilation."""
    reach = torch.arange(size)[None, :, None] * stride - padding + torch.arange(kernel)[None, None, :] * dilation
    return (reach == torch.arange(out)[:, None, None]).any(2)


def resize_reads(out: int, size: int, resize: Callable[[torch.Tensor], torch.Tensor]) -> Matrix:
    """bool [out, size]: where `resize` of a unit vector is not zero, and the pixel after, whose weight may be 0."""
    weights = resize(torch.eye(size)[None, :, :, None])[0, :, :, 0].T
    touched = weights != 0
    touched[:, 1:] |= touched[:, :-1].clone()
    return touched


def same(size: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Each output pixel reads the one input pixel in its place."""
    return torch.eye(size[0], dtype=torch.bool), torch.eye(size[1], dtype=torch.bool)


@st.composite
def conv2d(draw: st.DrawFn) -> Case:
    """Any kernel size, stride, padding, dilation and groups, also depthwise; bias, residual, activation or none."""
    generator = draw(generators())
    groups = draw(st.sampled_from([1, 1, 2, 3, 16, 17]))
    depthwise = draw(st.booleans())
    c = groups * (1 if depthwise else draw(st.sampled_from([1, 2, 5])) if groups > 1 else draw(CHANNELS))
    k = groups * (draw(CHANNELS) if groups == 1 else draw(st.sampled_from([1, 1, 2, 5])))
    n, h, w = draw(st.integers(1, 2)), draw(SIDES), draw(SIDES)
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(1, 3))
    padding = draw(pairs(0, 4))
    axes = list(zip(kernel, stride, padding, dilation, strict=True))
    extent = [conv_extent(size, *axis) for size, axis in zip((h, w), axes, strict=True)]
    assume(min(extent) >= 1)
    x, weight = values(generator, n, c, h, w), values(generator, k, c // groups, *kernel)
    bias = values(generator, k) if draw(st.booleans()) else None
    keywords = {"weight": weight, "bias": bias, "stride": stride, "padding": padding, "dilation": dilation}
    reads = tuple(window_reads(o, s, *axis) for o, s, axis in zip(extent, (h, w), axes, strict=True))
    terms = c // groups * kernel[0] * kernel[1]
    return draw(_fused(ops.conv2d, x, reads, (n, k, *extent), {**keywords, "groups": groups}, terms, generator))


@st.composite
def conv_transpose2d(draw: st.DrawFn) -> Case:
    """Any kernel size, stride, padding, output padding, dilation and groups; bias, residual, activation or none."""
    generator = draw(generators())
    groups = draw(st.sampled_from([1, 1, 2, 3, 16]))
    per_group = CHANNELS if groups == 1 else st.sampled_from([1, 2, 5])
    c, k = groups * draw(per_group), groups * draw(per_group)
    n, h, w = draw(st.integers(1, 2)), draw(st.integers(1, 8)), draw(st.integers(1, 8))
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(1, 2))
    padding = draw(pairs(0, 3))
    output_padding = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    axes = list(zip(kernel, stride, padding, dilation, strict=True))
    extent = [
        conv_transpose_extent(size, *axis, extra)
        for size, axis, extra in zip((h, w), axes, output_padding, strict=True)
    ]
    assume(min(extent) >= 1)
    x, weight = values(generator, n, c, h, w), values(generator, c, k // groups, *kernel)
    bias = values(generator, k) if draw(st.booleans()) else None
    keywords = {"weight": weight, "bias": bias, "stride": stride, "padding": padding, "dilation": dilation}
    keywords |= {"groups": groups, "output_padding": output_padding}
    reads = tuple(transposed_reads(o, s, *axis) for o, s, axis in zip(extent, (h, w), axes, strict=True))
    terms = c // groups * kernel[0] * kernel[1]
    return draw(_fused(ops.conv_transpose2d, x, reads, (n, k, *extent), keywords, terms, generator))


@st.composite
def _fused(draw: st.DrawFn, call, x, reads, out_shape, keywords, terms, generator) -> Case:
    """A convolution with any residual, activation and blocks."""
    maps, reads = {"x": x}, {"x": reads}
    residual = None
    if draw(st.booleans()):
        residual = maps["residual"] = values(generator, *out_shape)
        reads["residual"] = same(out_shape[2:])
    keywords |= draw(activations(out_shape[1], generator))
    allowed = tolerance(terms, x, keywords["weight"], addends=(keywords["bias"], residual))
    blocks = draw(arbitrary_blocks(out_shape[0], *out_shape[2:]))
    return Case(call, maps, reads, out_shape, blocks, keywords, allowed)


@st.composite
def _pool(draw: st.DrawFn, dilations: st.SearchStrategy[tuple[int, int]]) -> tuple:
    n, c, h, w = draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES)
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(dilations)
    padding = tuple(draw(st.integers(0, side // 2)) for side in kernel)
    ceil_mode = draw(st.booleans())
    axes = list(zip(kernel, stride, padding, dilation, strict=True))
    extent = [pool_extent(size, *axis, ceil_mode) for size, axis in zip((h, w), axes, strict=True)]
    assume(min(extent) >= 1)
    reads = tuple(window_reads(o, s, *axis) for o, s, axis in zip(extent, (h, w), axes, strict=True))
    keywords = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    return (n, c, h, w), {"x": reads}, (n, c, *extent), keywords, dilation


@st.composite
def max_pool2d(draw: st.DrawFn) -> Case:
    """Any window; negative values at the frame's edge, where padding must count as minus infinity."""
    shape, reads, out_shape, keywords, dilation = draw(_pool(pairs(1, 3)))
    x = values(draw(generators()), *shape) - draw(st.sampled_from([0.0, 10.0]))
    blocks = draw(arbitrary_blocks(out_shape[0], *out_shape[2:]))
    keywords["dilation"] = dilation
    return Case(ops.max_pool2d, {"x": x}, reads, out_shape, blocks, keywords, tolerance=0.0)


@st.composite
def avg_pool2d(draw: st.DrawFn) -> Case:
    """Any window and every way to count its elements."""
    shape, reads, out_shape, keywords, _ = draw(_pool(st.just((1, 1))))
    x = values(draw(generators()), *shape)
    keywords["count_include_pad"] = draw(st.booleans())
    keywords["divisor_override"] = draw(st.sampled_from([None, None, 1, 7]))
    blocks = draw(arbitrary_blocks(out_shape[0], *out_shape[2:]))
    allowed = tolerance(keywords["kernel_size"][0] * keywords["kernel_size"][1], x)
    return Case(ops.avg_pool2d, {"x": x}, reads, out_shape, blocks, keywords, allowed)


@st.composite
def interpolate(draw: st.DrawFn) -> Case:
    """Nearest and bilinear, larger and smaller, by size and by factor, with aligned corners and without."""
    n, c, h, w = draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES)
    mode = draw(st.sampled_from(["nearest", "bilinear"]))
    corners = mode == "bilinear" and draw(st.booleans())
    factors = None
    size = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    if draw(st.booleans()):
        factors = draw(st.tuples(*[st.sampled_from([2.0, 3.0, 4.0, 0.5, 1.0, 1.3, 0.7, 2.6])] * 2))
        size = tuple(interpolate_extent(*axis) for axis in zip((h, w), factors, strict=True))
        assume(min(size) >= 1)
    x = (any_bits if mode == "nearest" else values)(draw(generators()), n, c, h, w)

    def along(axis: int) -> Callable[[torch.Tensor], torch.Tensor]:
        named = {"mode": mode, "align_corners": corners if mode == "bilinear" else None}
        if factors is not None:
            return lambda unit: F.interpolate(unit, scale_factor=(factors[axis], 1.0), **named)
        return lambda unit: F.interpolate(unit, size=(size[axis], 1), **named)

    reads = {"x": tuple(resize_reads(size[axis], (h, w)[axis], along(axis)) for axis in (0, 1))}
    keywords = {"mode": mode, "align_corners": corners, "scale_factor": factors}
    blocks = draw(arbitrary_blocks(n, *size))
    # Four terms, and source positions that are float32 numbers up to h and w.
    allowed = tolerance(4 + h + w, x) if mode == "bilinear" else None
    return Case(ops.interpolate, {"x": x}, reads, (n, c, *size), blocks, keywords, allowed)


@st.composite
def _pointwise(draw: st.DrawFn) -> tuple:
    shape = (draw(st.integers(1, 2)), draw(CHANNELS), draw(SIDES), draw(SIDES))
    generator = draw(generators())
    return shape, generator, draw(arbitrary_blocks(shape[0], *shape[2:])), draw(activations(shape[1], generator))


@st.composite
def add(draw: st.DrawFn) -> Case:
    """Sums with any activation."""
    shape, generator, blocks, keywords = draw(_pointwise())
    x, y = values(generator, *shape), values(generator, *shape)
    reads = {"x": same(shape[2:]), "y": same(shape[2:])}
    return Case(ops.add, {"x": x, "y": y}, reads, shape, blocks, keywords, tolerance(1, addends=(x, y)))


@st.composite
def activation(draw: st.DrawFn) -> Case:
    """Any activation alone."""
    shape, generator, blocks, keywords = draw(_pointwise())
    x, allowed = values(generator, *shape), 0.0
    if keywords["activation"] is None:
        x, allowed = any_bits(generator, *shape), None
    return Case(ops.activation, {"x": x}, {"x": same(shape[2:])}, shape, blocks, keywords, allowed)


@st.composite
def affine(draw: st.DrawFn) -> Case:
    """Scale and shift with any activation."""
    shape, generator, blocks, keywords = draw(_pointwise())
    x, scale, shift = values(generator, *shape), values(generator, shape[1]), values(generator, shape[1])
    keywords |= {"scale": scale, "shift": shift}
    allowed = tolerance(1, x, scale, addends=(shift,))
    return Case(ops.affine, {"x": x}, {"x": same(shape[2:])}, shape, blocks, keywords, allowed)


@st.composite
def cat(draw: st.DrawFn) -> Case:
    """One to four parts of any bits."""
    n, h, w = draw(st.integers(1, 2)), draw(SIDES), draw(SIDES)
    generator = draw(generators())
    channels = draw(st.lists(CHANNELS, min_size=1, max_size=4))
    maps = {f"part{i}": any_bits(generator, n, c, h, w) for i, c in enumerate(channels)}
    out_shape = (n, sum(channels), h, w)
    blocks = draw(arbitrary_blocks(n, h, w))
    return Case(_cat, maps, dict.fromkeys(maps, same((h, w))), out_shape, blocks)


def _cat(*, blocks: BlockSet, out: torch.Tensor, **parts: torch.Tensor) -> torch.Tensor:
    return ops.cat(list(parts.values()), blocks, out)


# One strategy per op that obeys the contract as it stands; gather and scatter have a packed side.
CASES = {
    "activation": activation,
    "add": add,
    "affine": affine,
    "avg_pool2d": avg_pool2d,
    "cat": cat,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "interpolate": interpolate,
    "max_pool2d": max_pool2d,
}
