"""A case of each op from its tensors and parameters: output shape, what may be read, tolerance; all blocks active."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from sparseblock import ops
from sparseblock.activations import EPS, TINY, bound
from sparseblock.algorithm import ALGORITHMS
from sparseblock.backends.reference.group_norm import statistics
from sparseblock.blocks import BlockSet
from sparseblock.grid import cell_extent, conv_extent, conv_transpose_extent, interpolate_extent, pool_extent
from sparseblock.testing.case import Case
from sparseblock.testing.compare import tolerance, winograd_tolerance

Pair = tuple[int, int]
_EXACT = (None, "relu", "relu6", "clamp", "leaky_relu", "prelu")  # select or scale a value: round at most once
Matrix = torch.Tensor  # bool [out pixels, input pixels] of one axis


def conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair | tuple[Pair, Pair] = (0, 0),
    padding_mode: str = "zeros",
    dilation: Pair = (1, 1),
    groups: int = 1,
    combine: str = "add",
    algorithm: str = "direct",
    **activation: object,
) -> Case:
    """`ops.conv2d`, arguments as there."""
    sources = _padded_axes(x, padding, padding_mode)
    windows = list(zip(map(len, sources), weight.shape[2:], stride, (0, 0), dilation, strict=True))
    extent = [conv_extent(*window) for window in windows]
    reads = tuple(
        _through(_window_reads(out, *window), source, size)
        for out, window, source, size in zip(extent, windows, sources, x.shape[2:], strict=True)
    )
    keywords = {"stride": stride, "padding": padding, "padding_mode": padding_mode, "dilation": dilation}
    fused = {"groups": groups, "weight": weight, "bias": bias, "combine": combine, "algorithm": algorithm}
    shape = (x.shape[0], weight.shape[0], *extent)
    return _convolution(ops.conv2d, x, reads, shape, keywords | fused, activation, residual, weight[0].numel())


def conv_transpose2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    combine: str = "add",
    **activation: object,
) -> Case:
    """`ops.conv_transpose2d`, arguments as there."""
    windows = list(zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True))
    extent = [conv_transpose_extent(*window, o) for window, o in zip(windows, output_padding, strict=True)]
    reads = tuple(_transposed_reads(out, *window) for out, window in zip(extent, windows, strict=True))
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    fused = {"weight": weight, "bias": bias, "combine": combine, "output_padding": output_padding}
    shape = (x.shape[0], weight.shape[1] * groups, *extent)
    terms = weight[:, 0].numel() // groups
    return _convolution(ops.conv_transpose2d, x, reads, shape, keywords | fused, activation, residual, terms)


def max_pool2d(
    x: torch.Tensor,
    *,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Case:
    """`ops.max_pool2d`, arguments as there; the very values."""
    return _pool(ops.max_pool2d, x, kernel_size, stride, padding, dilation, ceil_mode, {"dilation": dilation}, 0.0)


def avg_pool2d(
    x: torch.Tensor,
    *,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Case:
    """`ops.avg_pool2d`, arguments as there."""
    keywords = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
    allowed = tolerance(kernel_size[0] * kernel_size[1], x)
    return _pool(ops.avg_pool2d, x, kernel_size, stride, padding, (1, 1), ceil_mode, keywords, allowed)


def adaptive_avg_pool2d(x: torch.Tensor, size: Pair) -> Case:
    """`ops.adaptive_avg_pool2d` to `size`."""
    longest = [side // out + 2 for side, out in zip(x.shape[2:], size, strict=True)]
    return _adaptive(ops.adaptive_avg_pool2d, x, size, tolerance(longest[0] * longest[1], x))


def adaptive_max_pool2d(x: torch.Tensor, size: Pair) -> Case:
    """`ops.adaptive_max_pool2d` to `size`; the very values."""
    return _adaptive(ops.adaptive_max_pool2d, x, size, 0.0)


def interpolate(
    x: torch.Tensor,
    size: Pair | None = None,
    *,
    mode: str = "nearest",
    align_corners: bool = False,
    scale_factor: tuple[float, float] | None = None,
) -> Case:
    """`ops.interpolate`, to `size` or by `scale_factor`; nearest moves bits."""
    sides = tuple(x.shape[2:])
    if scale_factor is not None:
        size = tuple(interpolate_extent(*axis) for axis in zip(sides, scale_factor, strict=True))
    named = {"mode": mode, "align_corners": align_corners if mode == "bilinear" else None}

    def along(axis: int) -> Callable[[torch.Tensor], torch.Tensor]:
        if scale_factor is not None:
            return lambda unit: F.interpolate(unit, scale_factor=(scale_factor[axis], 1.0), **named)
        return lambda unit: F.interpolate(unit, size=(size[axis], 1), **named)

    reads = tuple(_resize_reads(sides[axis], along(axis)) for axis in (0, 1))
    keywords = {"mode": mode, "align_corners": align_corners, "scale_factor": scale_factor}
    # Four terms, at source positions that are float32 numbers up to h and w.
    allowed = tolerance(4 + sum(sides), x) if mode == "bilinear" else None
    return _case(ops.interpolate, {"x": x}, {"x": reads}, (*x.shape[:2], *size), keywords, allowed)


def pad(x: torch.Tensor, *, padding: Pair | tuple[Pair, Pair], mode: str = "constant", value: float = 0.0) -> Case:
    """`ops.pad`, arguments as there; moves bits."""
    sources = _padded_axes(x, padding, mode)
    reads = tuple(
        _through(torch.eye(len(source), dtype=torch.bool), source, size)
        for source, size in zip(sources, x.shape[2:], strict=True)
    )
    keywords = {"padding": padding, "mode": mode, "value": value}
    return _case(ops.pad, {"x": x}, {"x": reads}, (*x.shape[:2], *map(len, sources)), keywords, None)


def pixel_shuffle(x: torch.Tensor, *, upscale_factor: int) -> Case:
    """`ops.pixel_shuffle`, arguments as there; moves bits."""
    n, c, *size = x.shape
    shape = (n, c // upscale_factor**2, *(side * upscale_factor for side in size))
    reads = tuple(torch.eye(side, dtype=torch.bool).repeat_interleave(upscale_factor, 0) for side in size)
    return _case(ops.pixel_shuffle, {"x": x}, {"x": reads}, shape, {"upscale_factor": upscale_factor}, None)


def pixel_unshuffle(x: torch.Tensor, *, downscale_factor: int) -> Case:
    """`ops.pixel_unshuffle`, arguments as there; moves bits."""
    n, c, *size = x.shape
    shape = (n, c * downscale_factor**2, *(side // downscale_factor for side in size))
    reads = tuple(torch.eye(side, dtype=torch.bool).repeat_interleave(downscale_factor, 1) for side in shape[2:])
    return _case(ops.pixel_unshuffle, {"x": x}, {"x": reads}, shape, {"downscale_factor": downscale_factor}, None)


def channel_shuffle(x: torch.Tensor, *, groups: int) -> Case:
    """`ops.channel_shuffle`, arguments as there; moves bits."""
    return _case(ops.channel_shuffle, {"x": x}, {"x": _same(x.shape[2:])}, x.shape, {"groups": groups}, None)


def add(x: torch.Tensor, y: torch.Tensor, **activation: object) -> Case:
    """`ops.add`, arguments as there."""
    return _pointwise(ops.add, {"x": x, "y": y}, {}, activation, tolerance(1, addends=(x, y)))


def mul(x: torch.Tensor, y: torch.Tensor, **activation: object) -> Case:
    """`ops.mul`, arguments as there."""
    return _pointwise(ops.mul, {"x": x, "y": y}, {}, activation, tolerance(1, x, y))


def activation(x: torch.Tensor, **activation: object) -> Case:
    """`ops.activation`, arguments as there; the very values of what selects or scales, the bits of none."""
    name = activation["activation"]
    case = _pointwise(ops.activation, {"x": x}, {}, activation, 0.0)
    if name in _EXACT:
        return replace(case, tolerance=None if name is None else 0.0, relative=0.0)
    return case


def affine(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, **activation: object) -> Case:
    """`ops.affine`, arguments as there."""
    allowed = tolerance(1, x, scale, addends=(shift,))
    return _pointwise(ops.affine, {"x": x}, {"scale": scale, "shift": shift}, activation, allowed)


def cat(*parts: torch.Tensor) -> Case:
    """`ops.cat` of `parts`; moves bits."""
    maps = {f"part{i}": part for i, part in enumerate(parts)}
    n, _, h, w = parts[0].shape
    return _case(
        _cat, maps, dict.fromkeys(maps, _same((h, w))), (n, sum(part.shape[1] for part in parts), h, w), {}, None
    )


def block_moments(x: torch.Tensor, *, cell: Pair, order: int = 1) -> Case:
    """`ops.block_moments`, arguments as there."""
    axes = list(zip(x.shape[2:], cell, strict=True))
    extent = [cell_extent(*axis) for axis in axes]
    reads = tuple(_window_reads(out, size, side, side, 0, 1) for out, (size, side) in zip(extent, axes, strict=True))
    # Rounded once, from sums in double precision; no value lies further from the mean than twice the largest.
    allowed = tolerance(1, x)
    if order == 2:
        allowed = max(allowed, tolerance(1, 2 * x, 2 * x) * cell[0] * cell[1])
    shape = (x.shape[0], order * x.shape[1], *extent)
    return _case(ops.block_moments, {"x": x}, {"x": reads}, shape, {"cell": cell, "order": order}, allowed)


def block_norm(x: torch.Tensor, y: torch.Tensor | None = None, *, cell: Pair, norm: str = "l1") -> Case:
    """`ops.block_norm`, arguments as there."""
    axes = list(zip(x.shape[2:], cell, strict=True))
    extent = [cell_extent(*axis) for axis in axes]
    reads = tuple(_window_reads(out, size, side, side, 0, 1) for out, (size, side) in zip(extent, axes, strict=True))
    maps = {"x": x} if y is None else {"x": x, "y": y}
    # Rounded once, from double precision: the largest magnitude to the very value.
    allowed, relative = (0.0, 0.0) if norm == "max" else (tolerance(1, x, addends=(y,)), torch.finfo(torch.float32).eps)
    keywords = {"cell": cell, "norm": norm}
    return _case(
        ops.block_norm, maps, dict.fromkeys(maps, reads), (x.shape[0], 1, *extent), keywords, allowed, relative
    )


def global_avg_pool2d(moments: torch.Tensor, *, size: Pair, cell: Pair) -> Case:
    """`ops.global_avg_pool2d`, arguments as there."""
    reads, keywords = _whole(moments, (1, 1)), {"size": size, "cell": cell}
    shape = (*moments.shape[:2], 1, 1)
    return _case(
        ops.global_avg_pool2d, {"moments": moments}, {"moments": reads}, shape, keywords, tolerance(1, moments)
    )


def group_norm(
    x: torch.Tensor,
    moments: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    num_groups: int,
    cell: Pair,
    eps: float = 1e-5,
    **activation: object,
) -> Case:
    """`ops.group_norm`, arguments as there."""
    size = tuple(x.shape[2:])
    keywords = {"weight": weight, "bias": bias, "num_groups": num_groups, "cell": cell, "eps": eps}
    mean, variance = statistics(moments.double(), size, cell, num_groups)
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight[:, None, None])
    # Scale, shift and result are rounded once each, from statistics in double precision.
    allowed = tolerance(1, torch.maximum(x.abs(), mean.abs()), scale, addends=(bias,))
    reads = {"x": _same(size), "moments": _whole(moments, size)}
    maps, exact = {"x": x, "moments": moments}, _activated(allowed, activation)
    return _case(ops.group_norm, maps, reads, x.shape, keywords | activation, *exact)


def softmax(x: torch.Tensor) -> Case:
    """`ops.softmax`, arguments as there."""
    # Of p = e^d / S with d = x - max: d rounds, which moves p by p |d| / 2 <= 0.2 eps and S by log(c) / 2 eps of it at
    # most (the mean of -d is an entropy); exp in p and in S is exact to 1 eps each, and the quotient rounds.
    relative = EPS * (2.5 + math.log(x.shape[1]) / 2)
    return _case(ops.softmax, {"x": x}, {"x": _same(x.shape[2:])}, x.shape, {}, 0.2 * EPS + TINY, relative)


def normalize(x: torch.Tensor, *, eps: float = 1e-12) -> Case:
    """`ops.normalize`, arguments as there."""
    # Rounded once, from double precision.
    return _case(ops.normalize, {"x": x}, {"x": _same(x.shape[2:])}, x.shape, {"eps": eps}, TINY, EPS)


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    eps: float = 1e-5,
    **activation: object,
) -> Case:
    """`ops.layer_norm`, arguments as there."""
    keywords = {"weight": weight, "bias": bias, "eps": eps}
    wide = x.double()
    normal = (wide - wide.mean(1, keepdim=True)) / (wide.var(1, unbiased=False, keepdim=True) + eps).sqrt()
    # Rounded before weight and bias, and once by each, from statistics in double precision.
    allowed = tolerance(1, normal, *(() if weight is None else (weight,)), addends=(bias,))
    return _pointwise(ops.layer_norm, {"x": x}, keywords, activation, allowed)


def _cat(*, blocks: BlockSet, out: torch.Tensor, **parts: torch.Tensor) -> torch.Tensor:
    return ops.cat(list(parts.values()), blocks, out)


def _case(call, maps, reads, out_shape, keywords, allowed, relative=0.0) -> Case:
    blocks = BlockSet.all(out_shape[0], 1, 1, tuple(out_shape[2:]))
    return Case(call, call, maps, reads, tuple(out_shape), blocks, keywords, allowed, relative)


def _convolution(call, x, reads, out_shape, keywords, activation, residual, terms) -> Case:
    maps, reads, factors, addends = {"x": x}, {"x": reads}, [x, keywords["weight"]], [keywords["bias"]]
    if residual is not None:
        maps["residual"], reads["residual"] = residual, _pixels(residual, out_shape[2:])
        if keywords["combine"] == "add":
            addends.append(residual)
        else:  # of every term; and one more rounding
            factors.append(residual)
            addends = [None if bias is None else bias * residual.abs().max() for bias in addends]
            terms += 1
    algorithm = keywords.get("algorithm", "direct")
    if ALGORITHMS[algorithm] is None:
        allowed = tolerance(terms, *factors, addends=tuple(addends))
    else:
        allowed = winograd_tolerance(algorithm, *factors, addends=tuple(addends))
    return _case(call, maps, reads, out_shape, keywords | activation, *_activated(allowed, activation))


def _activated(allowed: float, activation: dict[str, object]) -> tuple[float, float]:
    """Tolerance and relative part after an activation of what may be off by `allowed`."""
    of = bound(activation.get("activation"), activation.get("slope"))
    return of.lipschitz * allowed + EPS * of.absolute + TINY, EPS * of.relative


def _pool(call, x, kernel_size, stride, padding, dilation, ceil_mode, keywords, allowed) -> Case:
    windows = list(zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True))
    extent = [pool_extent(*window, ceil_mode) for window in windows]
    reads = tuple(_window_reads(out, *window) for out, window in zip(extent, windows, strict=True))
    keywords = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode} | keywords
    return _case(call, {"x": x}, {"x": reads}, (*x.shape[:2], *extent), keywords, allowed)


def _adaptive(call, x, size, allowed) -> Case:
    reads = tuple(_adaptive_reads(out, side) for out, side in zip(size, x.shape[2:], strict=True))
    return _case(call, {"x": x}, {"x": reads}, (*x.shape[:2], *size), {}, allowed)


def _pointwise(call, maps, keywords, activation, allowed) -> Case:
    shape = maps["x"].shape
    reads = {name: _pixels(value, shape[2:]) for name, value in maps.items()}
    return _case(call, maps, reads, shape, keywords | activation, *_activated(allowed, activation))


def _padded_axes(x: torch.Tensor, padding, mode: str) -> list[torch.Tensor]:
    """Of each axis of `x`, the pixel that every pixel of the padded axis shows; -1: none."""
    sources = []
    for size, around in zip(x.shape[2:], padding, strict=True):
        around, places = (around, around) if isinstance(around, int) else around, torch.arange(float(size))[None, None]
        if mode in ("zeros", "constant"):
            sources.append(F.pad(places, around, value=-1.0).flatten())
        else:
            sources.append(F.pad(places, around, mode=mode).flatten())
    return sources


def _through(reads: Matrix, source: torch.Tensor, size: int) -> Matrix:
    """What is read of an axis of `size` pixels where `reads` is of that axis padded."""
    shown = source[:, None] == torch.arange(float(size))[None, :]
    return reads.float() @ shown.float() > 0


def _window_reads(out: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Matrix:
    """Output o reads o * stride - padding + r * dilation."""
    reach = torch.arange(out)[:, None, None] * stride - padding + torch.arange(kernel)[None, :, None] * dilation
    return (reach == torch.arange(size)).any(1)


def _adaptive_reads(out: int, size: int) -> Matrix:
    """Output o reads from floor(o * size / out) to ceil((o + 1) * size / out)."""
    place, pixel = torch.arange(out)[:, None], torch.arange(size)[None, :]
    return (pixel >= place * size // out) & (pixel < -(-(place + 1) * size // out))


def _transposed_reads(out: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Matrix:
    """Input i reaches i * stride - padding + r * dilation."""
    reach = torch.arange(size)[None, :, None] * stride - padding + torch.arange(kernel)[None, None, :] * dilation
    return (reach == torch.arange(out)[:, None, None]).any(2)


def _resize_reads(size: int, resize: Callable[[torch.Tensor], torch.Tensor]) -> Matrix:
    """Where `resize` of a unit vector is not zero, and the pixel after, whose weight may be 0."""
    weights = resize(torch.eye(size)[None, :, :, None])[0, :, :, 0].T
    touched = weights != 0
    touched[:, 1:] |= touched[:, :-1].clone()
    return touched


def _whole(x: torch.Tensor, out: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Each output pixel reads all of the input."""
    return tuple(torch.ones(o, size, dtype=torch.bool) for o, size in zip(out, x.shape[2:], strict=True))


def _pixels(source: torch.Tensor, size: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Each output pixel reads the one in its place, or the only one there is."""
    return tuple(
        torch.eye(out, dtype=torch.bool) if own == out else torch.ones(out, 1, dtype=torch.bool)
        for own, out in zip(source.shape[2:], size, strict=True)
    )


def _same(size: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Each output pixel reads the one input pixel in its place."""
    return torch.eye(size[0], dtype=torch.bool), torch.eye(size[1], dtype=torch.bool)
