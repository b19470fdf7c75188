"""pad of the triton backend: a map with pixels around it, a constant, or its own, as the mode says. Moves bits."""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pad_source, pixels_of, work_of
from sparseblock.backends.triton.values import rounded


@triton.jit
def padded(
    x, x_n, x_y, x_x, x_height, x_width, before_y, before_x, value,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        row = pad_source(y - before_y, x_height, MODE)
        col = pad_source(column - before_x, x_width, MODE)
        real = (row >= 0) & (col >= 0)
        v = tl.load(x + at(n, row, col, c, x_n, x_y, x_x), mask=inside & real, other=0.0)
        constant = rounded(tl.full([PIXELS, CHANNELS], 0.0, tl.float32) + value, out)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), tl.where(real, v, constant), mask=inside)
        item += tl.num_programs(0)


def pad(x, index, count, block, out, padding, mode, value) -> None:
    left, _, top, _ = padding
    elementwise(padded, [*plane(x), *x.shape[2:], top, left, float(value)], index, count, block, out, MODE=mode)
