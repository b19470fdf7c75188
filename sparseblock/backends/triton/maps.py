"""Where the elements of active blocks are, and how programs share them.

A program takes PIXELS pixels of CHANNELS channels of a map at a time: what is said of pixels has the shape [PIXELS, 1],
what is said of channels [1, CHANNELS].
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pieces_of(pixels, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """How many pieces of work a map of so many pixels is."""
    return tl.cdiv(pixels, PIXELS) * tl.cdiv(channels, CHANNELS)


@triton.jit
def piece_of(item, pixels, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Which map piece `item` is of, the pixels and channels that it takes, and whether each is one of the map's."""
    across = tl.cdiv(channels, CHANNELS)
    c = item % across * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    down = item // across
    per_map = tl.cdiv(pixels, PIXELS)
    pixel = down % per_map * PIXELS + tl.arange(0, PIXELS)[:, None]
    return down // per_map, pixel, c, (pixel < pixels) & (c < channels)


@triton.jit
def region_of(index, i, block_h, block_w):
    """Image, first row and first column of active block `i`."""
    entry = index + 3 * i.to(tl.int64)
    return tl.load(entry).to(tl.int64), tl.load(entry + 1) * block_h, tl.load(entry + 2) * block_w


@triton.jit
def work_of(
    count, block_h, block_w, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """How many pieces all active blocks are: the count is read where it is."""
    pixels = tl.minimum(block_h, height) * tl.minimum(block_w, width)
    return tl.load(count) * pieces_of(pixels, channels, PIXELS, CHANNELS)


@triton.jit
def pixels_of(
    item, index, block_h, block_w, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Image, rows, columns and channels of piece `item` of the active blocks, and what of it is inside of the map."""
    across = tl.minimum(block_w, width)
    i, pixel, c, inside = piece_of(item, tl.minimum(block_h, height) * across, channels, PIXELS, CHANNELS)
    n, top, left = region_of(index, i, block_h, block_w)
    y = top + pixel // across
    x = left + pixel % across
    return n, y, x, c, inside & (y < height) & (x < width)


@triton.jit
def at(n, y, x, c, stride_n, stride_y, stride_x):
    """Elements from the beginning of a plane to these, in 64 bits."""
    return n.to(tl.int64) * stride_n + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x + c


@triton.jit
def pad_source(i, size, MODE: tl.constexpr):
    """The places along an axis of `size` pixels that places `i` are read from; -1: none is."""
    if MODE == "reflect":
        period = tl.maximum(2 * (size - 1), 1)
        place = (i % period + period) % period
        return tl.where(place < size, place, period - place)
    if MODE == "replicate":
        return tl.minimum(tl.maximum(i, 0), size - 1)
    if MODE == "circular":
        return (i % size + size) % size
    return tl.where((i >= 0) & (i < size), i, -1)
