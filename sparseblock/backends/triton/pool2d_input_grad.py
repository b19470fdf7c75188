"""The gradient of a pooling's input. Every pixel gathers from all windows that have it, in one order; `grad` is zero
where no block is active. Which tap a maximum came from is found before: the first largest, or the last NaN; -1 where a
window lies outside of the map.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients import reach, zeros
from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.pool2d import divisor_of, longest_part, window_of


@triton.jit
def taps_of_maxima(
    x, x_n, x_y, x_x, x_height, x_width,
    index, count, block_h, block_w, taps, taps_n, taps_y, taps_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, ADAPTIVE: tl.constexpr,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        top, rows = window_of(y, x_height, height, KERNEL_H, STRIDE_H, PAD_H, ADAPTIVE)
        left, cols = window_of(column, x_width, width, KERNEL_W, STRIDE_W, PAD_W, ADAPTIVE)
        best = tl.full([PIXELS, CHANNELS], -1, tl.int32)
        most = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for r in range(KERNEL_H):
            row = top + r * DILATION_H
            for s in range(KERNEL_W):
                col = left + s * DILATION_W
                real = (r < rows) & (s < cols) & (row >= 0) & (row < x_height) & (col >= 0) & (col < x_width)
                v = tl.load(x + at(n, row, col, c, x_n, x_y, x_x), mask=inside & real, other=0.0)
                better = real & ((best < 0) | (v > most) | (v != v))
                best = tl.where(better, r * KERNEL_W + s, best)
                most = tl.where(better, v, most)
        tl.store(taps + at(n, y, column, c, taps_n, taps_y, taps_x), best, mask=inside)
        item += tl.num_programs(0)


@triton.jit
def window_with(
    place, number, size, extent, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, DILATION: tl.constexpr,
    ADAPTIVE: tl.constexpr,
):  # fmt: skip
    """The `number`-th window along an axis that may have `place`, of at most `extent`; which tap that is, or -1."""
    if ADAPTIVE:
        window = (place.to(tl.int64) * extent // size).to(tl.int32) + number
    else:
        window = (place + PAD) // STRIDE - number
    first, length = window_of(window, size, extent, KERNEL, STRIDE, PAD, ADAPTIVE)
    reach = place - first
    tap = reach // DILATION
    real = (window >= 0) & (window < extent) & (reach >= 0) & (tap * DILATION == reach) & (tap < length)
    return window, tl.where(real, tap, -1)


@triton.jit
def pooled_input_grads(
    taps, taps_n, taps_y, taps_x, grad, grad_n, grad_y, grad_x, grad_height, grad_width,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, MAX: tl.constexpr, ADAPTIVE: tl.constexpr,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    COUNT_PAD: tl.constexpr, DIVISOR: tl.constexpr, WINDOWS_H: tl.constexpr, WINDOWS_W: tl.constexpr,
):  # fmt: skip
    """WINDOWS: that may have a pixel."""
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        total = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for i in range(WINDOWS_H):
            oy, r = window_with(y, i, height, grad_height, KERNEL_H, STRIDE_H, PAD_H, DILATION_H, ADAPTIVE)
            for k in range(WINDOWS_W):
                ox, s = window_with(column, k, width, grad_width, KERNEL_W, STRIDE_W, PAD_W, DILATION_W, ADAPTIVE)
                real = inside & (r >= 0) & (s >= 0)
                g = tl.load(grad + at(n, oy, ox, c, grad_n, grad_y, grad_x), mask=real, other=0.0)
                if MAX:
                    best = tl.load(taps + at(n, oy, ox, c, taps_n, taps_y, taps_x), mask=real, other=-1)
                    total += tl.where(best == r * KERNEL_W + s, g, 0.0)
                else:
                    top, rows = window_of(oy, height, grad_height, KERNEL_H, STRIDE_H, PAD_H, ADAPTIVE)
                    left, cols = window_of(ox, width, grad_width, KERNEL_W, STRIDE_W, PAD_W, ADAPTIVE)
                    by = divisor_of(top, rows, left, cols, height, width, PAD_H, PAD_W, COUNT_PAD, DIVISOR)
                    total += tl.div_rn(g, by + tl.zeros([PIXELS, CHANNELS], tl.float32))
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), total, mask=inside)
        item += tl.num_programs(0)


def pool2d_input_grad(x, grad, index, count, block, pool, size) -> torch.Tensor:
    """Float32 of `size`: of `pool`, whose maxima are of x, to a map whose gradient is `grad`, of active blocks."""
    taps, largest = grad, pool.kind == native.POOL_MAX
    constants, windows = {"ADAPTIVE": bool(pool.adaptive)}, {}
    for axis, *sides in zip("HW", size[2:], grad.shape[2:], strict=True):
        window, windows[f"WINDOWS_{axis}"] = _along(pool, axis.lower(), *sides)
        constants |= {f"{name}_{axis}": side for name, side in window.items()}
    if largest:
        taps = torch.empty_like(grad, dtype=torch.int32)
        elementwise(taps_of_maxima, [*plane(x), *x.shape[2:]], index, count, block, taps, **constants)
    result = zeros(size, grad)
    blocks = reach.pool2d(pool, index, count, block, size, grad.shape)
    constants |= {"MAX": largest, "COUNT_PAD": bool(pool.count_include_pad), "DIVISOR": pool.divisor or None, **windows}
    arguments = [*plane(taps), *plane(grad), *grad.shape[2:]]
    elementwise(pooled_input_grads, arguments, blocks.index, blocks.count, blocks.block, result, **constants)
    return result


def _along(pool: native.Pool2d, axis: str, size: int, out: int) -> tuple[dict[str, int], int]:
    """The windows of an axis, by name of the constant, and how many have a pixel at most."""
    if pool.adaptive:
        return {"KERNEL": longest_part(size, out), "STRIDE": 1, "PAD": 0, "DILATION": 1}, longest_part(out, size)
    window = {name: getattr(pool, f"{name}_{axis}".lower()) for name in ("KERNEL", "STRIDE", "PAD", "DILATION")}
    return window, (window["KERNEL"] - 1) * window["DILATION"] // window["STRIDE"] + 1
