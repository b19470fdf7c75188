"""block_moments of the triton backend: mean, and sum of squared deviations from it, of every cell of a map. A program
takes CHANNELS channels of a cell, PIXELS of its pixels at a time; the second pass finds the cell in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.cells import cells_of, side_of, widths
from sparseblock.backends.triton.launch import launch, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import widened


@triton.jit
def moments_of_cells(
    x, x_n, x_y, x_x, x_height, x_width, channels, cell_h, cell_w,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, 1, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(item, index, count, block_h, block_w, height, width, channels, 1, CHANNELS)
        rows = side_of(y, cell_h, x_height)
        cols = side_of(column, cell_w, x_width)
        total = tl.zeros([PIXELS, CHANNELS], tl.float64)
        first = 0
        while first < cell_h * cell_w:
            pixel = first + tl.arange(0, PIXELS)[:, None]
            real = inside & (pixel // cell_w < rows) & (pixel % cell_w < cols)
            place = at(n, y * cell_h + pixel // cell_w, column * cell_w + pixel % cell_w, c, x_n, x_y, x_x)
            total += widened(tl.load(x + place, mask=real, other=0.0)).to(tl.float64)
            first += PIXELS
        mean = tl.sum(total, axis=0)[None, :] / (rows * cols).to(tl.float64)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), mean.to(tl.float32), mask=inside)
        if ORDER == 2:
            total = tl.zeros([PIXELS, CHANNELS], tl.float64)
            first = 0
            while first < cell_h * cell_w:
                pixel = first + tl.arange(0, PIXELS)[:, None]
                real = inside & (pixel // cell_w < rows) & (pixel % cell_w < cols)
                place = at(n, y * cell_h + pixel // cell_w, column * cell_w + pixel % cell_w, c, x_n, x_y, x_x)
                d = widened(tl.load(x + place, mask=real, other=0.0)).to(tl.float64) - mean
                total += tl.where(real, d * d, 0.0)
                first += PIXELS
            deviations = tl.sum(total, axis=0)[None, :].to(tl.float32)
            tl.store(out + at(n, y, column, channels + c, out_n, out_y, out_x), deviations, mask=inside)
        item += tl.num_programs(0)


def block_moments(x, index, count, block, out, cell, order) -> None:
    tile, channels = widths(x.shape[1]), x.shape[1]
    cell = [min(side, size) for side, size in zip(cell, x.shape[2:], strict=True)]
    work = len(index) * cells_of(block, out) * -(-channels // tile["CHANNELS"])
    arguments = [*plane(x), *x.shape[2:], channels, *cell, index, count, *block, *plane(out), *out.shape[2:]]
    launch(moments_of_cells, work, out.device, *arguments, ORDER=order, **tile)
