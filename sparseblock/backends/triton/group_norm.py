"""group_norm of the triton backend: first scale and shift of every image and channel from the moments of its map, then
the active blocks. csrc/cpu/group_norm.cpp has the formulas.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparseblock.backends.triton.cells import side_of, summed, widths
from sparseblock.backends.triton.epilogue import activate, activation_of, vector
from sparseblock.backends.triton.launch import elementwise, launch, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import rounded, widened


@triton.jit
def group_norm_statistics(
    moments, moments_n, moments_y, moments_x, rows, cols, size_h, size_w, cell_h, cell_w, weight, bias,
    count, statistics, images, channels,
    GROUPS: tl.constexpr, EPS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """statistics [n][2][c]: scales, then shifts. A program takes a group of an image, PIXELS of its cells by CHANNELS
    of its channels at a time.
    """
    width = channels // GROUPS
    work = tl.where(tl.load(count) > 0, images * GROUPS, 0)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n = (item // GROUPS).to(tl.int64)
        group = item % GROUPS * width
        values = tl.full([1, 1], 1.0, tl.float64) * size_h * size_w * width
        total = tl.zeros([PIXELS, CHANNELS], tl.float64)
        first = 0
        while first < rows * cols:
            cell = first + tl.arange(0, PIXELS)[:, None]
            part = side_of(cell // cols, cell_h, size_h).to(tl.float64) * side_of(cell % cols, cell_w, size_w)
            channel = 0
            while channel < width:
                c = channel + tl.arange(0, CHANNELS)[None, :]
                place = at(n, cell // cols, cell % cols, group + c, moments_n, moments_y, moments_x)
                known = (cell < rows * cols) & (c < width)
                total += part * tl.load(moments + place, mask=known, other=0.0).to(tl.float64)
                channel += CHANNELS
            first += PIXELS
        mean = summed(total) / values
        total = tl.zeros([PIXELS, CHANNELS], tl.float64)
        first = 0
        while first < rows * cols:
            cell = first + tl.arange(0, PIXELS)[:, None]
            part = side_of(cell // cols, cell_h, size_h).to(tl.float64) * side_of(cell % cols, cell_w, size_w)
            channel = 0
            while channel < width:
                c = channel + tl.arange(0, CHANNELS)[None, :]
                place = at(n, cell // cols, cell % cols, group + c, moments_n, moments_y, moments_x)
                known = (cell < rows * cols) & (c < width)
                d = tl.load(moments + place, mask=known, other=0.0).to(tl.float64) - mean
                deviations = tl.load(moments + place + channels, mask=known, other=0.0).to(tl.float64)
                total += tl.where(known, deviations + d * d * part, 0.0)
                channel += CHANNELS
            first += PIXELS
        inverse = 1.0 / tl.sqrt(summed(total) / values + EPS)
        channel = 0
        while channel < width:
            c = channel + tl.arange(0, CHANNELS)[None, :]
            known = c < width
            scale = inverse + tl.zeros([1, CHANNELS], tl.float64)
            if weight is not None:
                scale *= widened(tl.load(weight + group + c, mask=known, other=0.0)).to(tl.float64)
            scale = scale.to(tl.float32)
            # Of the scale as it was rounded, so that a large mean cancels.
            shift = -mean * scale.to(tl.float64)
            if bias is not None:
                shift += widened(tl.load(bias + group + c, mask=known, other=0.0)).to(tl.float64)
            place = statistics + n * 2 * channels + group + c
            tl.store(place, scale, mask=known)
            tl.store(place + channels, shift.to(tl.float32), mask=known)
            channel += CHANNELS
        item += tl.num_programs(0)


@triton.jit
def group_normalized(
    x, x_n, x_y, x_x, statistics, slope, low, high,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        known = c < channels
        v = widened(tl.load(x + at(n, y, column, c, x_n, x_y, x_x), mask=inside, other=0.0))
        of_image = statistics + n * 2 * channels + c
        v = v * tl.load(of_image, mask=known, other=0.0) + tl.load(of_image + channels, mask=known, other=0.0)
        v = rounded(activate(v, c, known, slope, low, high, ACTIVATION), out)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


def group_norm(
    x, moments, weight, bias, index, count, block, out, num_groups, eps, cell, activation, slope, bounds
) -> None:
    n, c, *size = out.shape
    statistics = torch.empty(n, 2, c, device=out.device)
    arguments = [
        *plane(moments),
        *moments.shape[2:],
        *size,
        *cell,
        vector(weight),
        vector(bias),
        count,
        statistics,
        n,
        c,
    ]
    constants = {"GROUPS": num_groups, "EPS": eps, **widths(c // num_groups)}
    launch(group_norm_statistics, n * num_groups if len(index) else 0, out.device, *arguments, **constants)
    fused, constants = activation_of(activation, slope, bounds)
    elementwise(group_normalized, [*plane(x), statistics, *fused], index, count, block, out, **constants)
