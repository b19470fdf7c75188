"""Which input the active blocks of an op reach: where the gradient with respect to it may be anything but zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from sparseblock.backends.cpu import native
from sparseblock.blocks import BlockSet, trusted

# Of an axis: the first and last pixel of out to those of the input, int64 [blocks]; and how many pixels there come to
# how many here.
Axis = tuple[Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]], float]


def conv2d(conv: native.Conv2d, index, count, block, size: Sequence[int], out_size: Sequence[int]) -> BlockSet:
    """Blocks of x [n, c, h, w] = `size` that the active blocks of out [n, k, oh, ow] read."""
    return _reached(index, count, block, [_of_window(conv, axis, conv.transposed) for axis in "hw"], size, out_size)


def pool2d(pool: native.Pool2d, index, count, block, size: Sequence[int], out_size: Sequence[int]) -> BlockSet:
    """The same of a pooling."""
    axes = zip("hw", size[2:], out_size[2:], strict=True)
    along = [_of_parts(*sides) if pool.adaptive else _of_window(pool, axis) for axis, *sides in axes]
    return _reached(index, count, block, along, size, out_size)


def interpolate(
    resize: native.Interpolate, index, count, block, size: Sequence[int], out_size: Sequence[int]
) -> BlockSet:
    """The same of a resize, and a little around."""
    scales = (resize.scale_h, resize.scale_w)
    return _reached(index, count, block, list(map(_of_resize, scales, size[2:])), size, out_size)


def _of_window(given: native.Conv2d | native.Pool2d, axis: str, transposed: bool = False) -> Axis:
    names = ("kernel", "stride", "pad", "dilation")
    kernel, stride, pad, dilation = (getattr(given, f"{name}_{axis}") for name in names)
    further = (kernel - 1) * dilation
    if transposed:
        return lambda first, last: ((first + pad - further) // stride, (last + pad) // stride), 1 / stride
    return lambda first, last: (first * stride - pad, last * stride - pad + further), stride


def _of_parts(size: int, out_size: int) -> Axis:
    return lambda first, last: (first * size // out_size, ((last + 1) * size - 1) // out_size), size / out_size


def _of_resize(scale: float, size: int) -> Axis:
    around = 2 + size // 2**20  # two pixels are blended, between places that float32 rounds

    def reach(first, last):
        low, high = (first.double() * scale).long() - around, ((last + 1).double() * scale).long() + around
        return low.clamp(max=size - 1), high

    return reach, scale


def _reached(index, count, block, along: list[Axis], size, out_size) -> BlockSet:
    grid = (out_size[0], *(-(-side // length) for side, length in zip(out_size[2:], block, strict=True)))
    mask = trusted(index, count, grid, tuple(block)).to_mask().float()
    # Blocks of the input are what those of out come to there.
    sides = zip(block, along, size[2:], strict=True)
    sizes = [min(max(math.ceil(length * ratio), 1), max(side, 1)) for length, (_, ratio), side in sides]
    rows, cols = (
        _cells(reach, grid[1 + axis], block[axis], out_size[2 + axis], sizes[axis], size[2 + axis], mask.device)
        for axis, (reach, _) in enumerate(along)
    )
    return BlockSet.from_mask(rows.T @ mask @ cols > 0, sizes)


def _cells(reach, blocks: int, length: int, out_size: int, in_length: int, size: int, device) -> torch.Tensor:
    """float [blocks of out, blocks of the input] of one axis: 1 where the one reaches into the other."""
    first = torch.arange(blocks, device=device) * length
    low, high = reach(first, (first + length).clamp(max=out_size) - 1)
    start = torch.arange(-(-size // in_length), device=device) * in_length
    return ((start <= high[:, None]) & (start + in_length > low[:, None])).float()
