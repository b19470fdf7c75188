"""global_avg_pool2d of the triton backend: the mean of a map from the means of its cells. A program takes CHANNELS
channels of an image, PIXELS of its cells at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.cells import side_of, widths
from sparseblock.backends.triton.launch import launch, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import rounded


@triton.jit
def mean_of_cells(
    moments, moments_n, moments_y, moments_x, rows, cols, size_h, size_w, cell_h, cell_w,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, 1, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(item, index, count, block_h, block_w, height, width, channels, 1, CHANNELS)
        total = tl.zeros([PIXELS, CHANNELS], tl.float64)
        first = 0
        while first < rows * cols:
            cell = first + tl.arange(0, PIXELS)[:, None]
            place = at(n, cell // cols, cell % cols, c, moments_n, moments_y, moments_x)
            mean = tl.load(moments + place, mask=inside & (cell < rows * cols), other=0.0).to(tl.float64)
            pixels = side_of(cell // cols, cell_h, size_h).to(tl.float64) * side_of(cell % cols, cell_w, size_w)
            total += mean * pixels
            first += PIXELS
        mean = tl.sum(total, axis=0)[None, :] / (tl.full([1, 1], 1.0, tl.float64) * size_h * size_w)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), rounded(mean.to(tl.float32), out), mask=inside)
        item += tl.num_programs(0)


def global_avg_pool2d(moments, index, count, block, out, size, cell) -> None:
    tile, channels = widths(out.shape[1]), out.shape[1]
    arguments = [*plane(moments), *moments.shape[2:], *size, *cell, index, count, *block, *plane(out), 1, 1, channels]
    launch(mean_of_cells, len(index) * -(-channels // tile["CHANNELS"]), out.device, *arguments, **tile)
