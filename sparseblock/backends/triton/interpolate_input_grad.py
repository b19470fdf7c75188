"""The gradient of a resize's input. Every pixel gathers from all that were made of it, in one order; `grad` is zero
where no block is active.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients import reach, zeros
from sparseblock.backends.triton.interpolate import source_of
from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of


@triton.jit
def most_of(v):
    """The largest of [PIXELS, 1]."""
    return tl.max(tl.max(v, axis=1), axis=0)


@triton.jit
def first_place(place, scale, size, extent, BEHIND: tl.constexpr, BILINEAR: tl.constexpr, ALIGN_CORNERS: tl.constexpr):
    """The first of `extent` places whose source reaches pixels `place`, or lies BEHIND them: all that follow do."""
    low = place * 0
    high = low + extent
    while most_of(high - low) > 0:
        middle = low + (high - low) // 2
        near, far, _ = source_of(middle, scale, size, BILINEAR, ALIGN_CORNERS)
        if BEHIND:
            such = near > place
        elif BILINEAR:
            such = far >= place
        else:
            such = near >= place
        such = such | (low >= high)
        high = tl.where(such, tl.minimum(middle, high), high)
        low = tl.where(such, low, middle + 1)
    return low


@triton.jit
def weight_of(o, place, scale, size, BILINEAR: tl.constexpr, ALIGN_CORNERS: tl.constexpr):
    """How much pixels `place` count in outputs `o`."""
    near, far, along = source_of(o, scale, size, BILINEAR, ALIGN_CORNERS)
    if not BILINEAR:
        return tl.where(near == place, 1.0, 0.0)
    return tl.where(near == place, 1.0 - along, 0.0) + tl.where(far == place, along, 0.0)


@triton.jit
def resized_input_grads(
    grad, grad_n, grad_y, grad_x, grad_height, grad_width, scale_h, scale_w,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, BILINEAR: tl.constexpr, ALIGN_CORNERS: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        top = first_place(y, scale_h, height, grad_height, False, BILINEAR, ALIGN_CORNERS)
        rows = first_place(y, scale_h, height, grad_height, True, BILINEAR, ALIGN_CORNERS) - top
        left = first_place(column, scale_w, width, grad_width, False, BILINEAR, ALIGN_CORNERS)
        cols = first_place(column, scale_w, width, grad_width, True, BILINEAR, ALIGN_CORNERS) - left
        total = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for i in range(most_of(rows)):
            down = weight_of(top + i, y, scale_h, height, BILINEAR, ALIGN_CORNERS)
            for k in range(most_of(cols)):
                weight = down * weight_of(left + k, column, scale_w, width, BILINEAR, ALIGN_CORNERS)
                real = inside & (i < rows) & (k < cols)
                g = tl.load(grad + at(n, top + i, left + k, c, grad_n, grad_y, grad_x), mask=real, other=0.0)
                total += g * weight
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), total, mask=inside)
        item += tl.num_programs(0)


def interpolate_input_grad(grad, index, count, block, resize, size) -> torch.Tensor:
    """Float32 of `size`: of `resize`, to a map whose gradient is `grad`, of active blocks."""
    result = zeros(size, grad)
    blocks = reach.interpolate(resize, index, count, block, size, grad.shape)
    arguments = [*plane(grad), *grad.shape[2:], resize.scale_h, resize.scale_w]
    constants = {"BILINEAR": resize.mode == native.BILINEAR, "ALIGN_CORNERS": bool(resize.align_corners)}
    elementwise(resized_input_grads, arguments, blocks.index, blocks.count, blocks.block, result, **constants)
    return result
