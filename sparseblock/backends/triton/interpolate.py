"""Resize, nearest and bilinear, as csrc/cpu/interpolate.cpp has it: blends along rows first, then between them."""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import rounded, widened
from sparseblock.grid import interpolate_scale


@triton.jit
def source_of(place, scale, size, BILINEAR: tl.constexpr, ALIGN_CORNERS: tl.constexpr):
    """The two pixels along an axis between which an output pixel lies, and how much of the second counts."""
    position = place.to(tl.float32) * scale
    if BILINEAR and not ALIGN_CORNERS:
        position = (place.to(tl.float32) + 0.5) * scale - 0.5
        position = tl.where(position < 0.0, 0.0, position)
    near = tl.minimum(position.to(tl.int32), size - 1)
    weight = position - near.to(tl.float32)
    return near, tl.minimum(near + 1, size - 1), tl.where(weight > 1.0, 1.0, weight)


@triton.jit
def resized(
    x, x_n, x_y, x_x, x_height, x_width, scale_h, scale_w,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, BILINEAR: tl.constexpr, ALIGN_CORNERS: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        top, bottom, down = source_of(y, scale_h, x_height, BILINEAR, ALIGN_CORNERS)
        left, right, along = source_of(column, scale_w, x_width, BILINEAR, ALIGN_CORNERS)
        v = tl.load(x + at(n, top, left, c, x_n, x_y, x_x), mask=inside, other=0.0)
        if BILINEAR:
            v = widened(v)
            v += along * (widened(tl.load(x + at(n, top, right, c, x_n, x_y, x_x), mask=inside, other=0.0)) - v)
            below = widened(tl.load(x + at(n, bottom, left, c, x_n, x_y, x_x), mask=inside, other=0.0))
            across = widened(tl.load(x + at(n, bottom, right, c, x_n, x_y, x_x), mask=inside, other=0.0))
            below += along * (across - below)
            v = rounded(v + down * (below - v), out)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


def interpolate(x, index, count, block, out, mode, align_corners, scale_factor) -> None:
    scales = [
        interpolate_scale(*sides, mode, align_corners, factor)
        for *sides, factor in zip(x.shape[2:], out.shape[2:], scale_factor or (None, None), strict=True)
    ]
    constants = {"BILINEAR": mode == "bilinear", "ALIGN_CORNERS": align_corners}
    elementwise(resized, [*plane(x), *x.shape[2:], *scales], index, count, block, out, **constants)
