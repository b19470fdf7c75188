"""Where the elements of active blocks are, and how programs share them.

A program takes PIXELS pixels, a run of one active block after another, of CHANNELS channels at a time: what is said of
pixels has the shape [PIXELS, 1], what is said of channels [1, CHANNELS].
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def run_of(piece, per_map, maps, PIXELS: tl.constexpr):
    """Map and place in it of the pixels of run `piece` through so many maps, and which of these pixels there are."""
    first = piece.to(tl.int64) * PIXELS
    i = first // per_map
    place = (first - i * per_map).to(tl.int32) + tl.arange(0, PIXELS)[:, None]
    i += place // per_map
    listed = i < maps
    return tl.where(listed, i, 0), place % per_map, listed


@triton.jit
def pieces_of(maps, per_map, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """How many pieces of work so many maps of so many pixels are."""
    return tl.cdiv(maps.to(tl.int64) * per_map, PIXELS) * tl.cdiv(channels, CHANNELS)


@triton.jit
def piece_of(item, maps, per_map, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Map, place in it and channels of piece `item`, and which of these there are."""
    across = tl.cdiv(channels, CHANNELS)
    c = (item % across).to(tl.int32) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    i, place, listed = run_of(item // across, per_map, maps, PIXELS)
    return i, place, c, listed & (c < channels)


@triton.jit
def region_of(index, i, block_h, block_w):
    """Image, first row and first column of active blocks `i`."""
    entry = index + 3 * i
    return tl.load(entry).to(tl.int64), tl.load(entry + 1) * block_h, tl.load(entry + 2) * block_w


@triton.jit
def work_of(
    count, block_h, block_w, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """How many pieces all active blocks are: the count is read where it is."""
    per_block = tl.minimum(block_h, height) * tl.minimum(block_w, width)
    return pieces_of(tl.load(count), per_block, channels, PIXELS, CHANNELS)


@triton.jit
def pixels_of(
    item, index, count, block_h, block_w, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Images, rows, columns and channels of piece `item` of the active blocks, and what of it is inside of the map."""
    across = tl.minimum(block_w, width)
    per_block = tl.minimum(block_h, height) * across
    i, place, c, inside = piece_of(item, tl.load(count), per_block, channels, PIXELS, CHANNELS)
    n, top, left = region_of(index, i, block_h, block_w)
    y = top + place // across
    x = left + place % across
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
