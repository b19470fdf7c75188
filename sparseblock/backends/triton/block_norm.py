"""block_norm of the triton backend: the norm of every cell of a map, or of the difference of two maps. A program takes
a cell, PIXELS of its pixels by CHANNELS channels at a time. NaN is larger than any.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.cells import cells_of, side_of, summed, widths
from sparseblock.backends.triton.launch import launch, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import widened


@triton.jit
def norms_of_cells(
    x, x_n, x_y, x_x, y, y_n, y_y, y_x, x_height, x_width, channels, cell_h, cell_w,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, 1, 1, 1)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, row, column, _, inside = pixels_of(item, index, count, block_h, block_w, height, width, 1, 1, 1)
        rows = side_of(row, cell_h, x_height)
        cols = side_of(column, cell_w, x_width)
        total = tl.zeros([PIXELS, CHANNELS], tl.float64)
        first = 0
        while first < cell_h * cell_w:
            pixel = first + tl.arange(0, PIXELS)[:, None]
            down = row * cell_h + pixel // cell_w
            along = column * cell_w + pixel % cell_w
            real = inside & (pixel // cell_w < rows) & (pixel % cell_w < cols)
            channel = 0
            while channel < channels:
                c = channel + tl.arange(0, CHANNELS)[None, :]
                known = real & (c < channels)
                v = widened(tl.load(x + at(n, down, along, c, x_n, x_y, x_x), mask=known, other=0.0)).to(tl.float64)
                if y is not None:
                    second = tl.load(y + at(n, down, along, c, y_n, y_y, y_x), mask=known, other=0.0)
                    v -= widened(second).to(tl.float64)
                if NORM == "l2":
                    total += v * v
                elif NORM == "l1":
                    total += tl.abs(v)
                else:
                    total = tl.where((tl.abs(v) >= total) | (v != v), tl.abs(v), total)
                channel += CHANNELS
            first += PIXELS
        if NORM == "max":
            broken = total != total
            norm = tl.max(tl.max(tl.where(broken, 0.0, total), axis=1), axis=0)
            norm += summed(tl.where(broken, total, 0.0))
        else:
            norm = summed(total)
        if NORM == "l2":
            norm = tl.sqrt(norm)
        tl.store(out + at(n, row, column, 0, out_n, out_y, out_x), norm.to(tl.float32), mask=inside)
        item += tl.num_programs(0)


def block_norm(x, y, index, count, block, out, cell, norm) -> None:
    second = (None, 0, 0, 0) if y is None else plane(y)
    cell = [min(side, size) for side, size in zip(cell, x.shape[2:], strict=True)]
    arguments = [*plane(x), *second, *x.shape[2:], x.shape[1], *cell, index, count, *block, *plane(out), *out.shape[2:]]
    work = len(index) * cells_of(block, out)
    launch(norms_of_cells, work, out.device, *arguments, NORM=norm, **widths(x.shape[1]))
