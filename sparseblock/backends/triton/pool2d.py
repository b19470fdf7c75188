"""Maximum and average pooling. Sums and maxima go through the window in one fixed order; NaN wins over any maximum."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import rounded, widened


@triton.jit
def window_of(
    place, size, extent, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, ADAPTIVE: tl.constexpr
):
    """Where the windows of `extent` places along an axis of `size` pixels begin, and how many taps they have."""
    if ADAPTIVE:
        first = (place.to(tl.int64) * size // extent).to(tl.int32)
        return first, tl.cdiv((place.to(tl.int64) + 1) * size, extent).to(tl.int32) - first
    return place * STRIDE - PAD, place * 0 + KERNEL


@triton.jit
def counted(first, taps, size, PAD: tl.constexpr):
    """How many taps of windows lie inside of an axis of `size` pixels, and PAD on both sides of them."""
    return tl.maximum(tl.minimum(first + taps, size + PAD) - tl.maximum(first, -PAD), 0)


@triton.jit
def divisor_of(
    top, rows, left, cols, height, width,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, COUNT_PAD: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """What the sums over these windows of a map of that size are divided by, float32."""
    if DIVISOR is not None:
        return (rows * 0 + DIVISOR).to(tl.float32)
    down = counted(top, rows, height, PAD_H if COUNT_PAD else 0)
    along = counted(left, cols, width, PAD_W if COUNT_PAD else 0)
    return tl.maximum(down * along, 1).to(tl.float32)


@triton.jit
def pool2d(
    x, x_n, x_y, x_x, x_height, x_width,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, MAX: tl.constexpr, ADAPTIVE: tl.constexpr,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    COUNT_PAD: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        top, rows = window_of(y, x_height, height, KERNEL_H, STRIDE_H, PAD_H, ADAPTIVE)
        left, cols = window_of(column, x_width, width, KERNEL_W, STRIDE_W, PAD_W, ADAPTIVE)
        total = tl.full([PIXELS, CHANNELS], float("-inf") if MAX else 0.0, tl.float32)
        for r in range(KERNEL_H):
            row = top + r * DILATION_H
            for s in range(KERNEL_W):
                col = left + s * DILATION_W
                real = (r < rows) & (s < cols) & (row >= 0) & (row < x_height) & (col >= 0) & (col < x_width)
                v = widened(tl.load(x + at(n, row, col, c, x_n, x_y, x_x), mask=inside & real, other=0.0))
                if MAX:
                    total = tl.where(real & ((v >= total) | (v != v)), v, total)
                else:
                    total += v
        if not MAX:
            by = divisor_of(top, rows, left, cols, x_height, x_width, PAD_H, PAD_W, COUNT_PAD, DIVISOR)
            total = tl.div_rn(total, by + tl.zeros([PIXELS, CHANNELS], tl.float32))
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), rounded(total, out), mask=inside)
        item += tl.num_programs(0)


def run(
    kind: str, x, index, count, block, out,
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int] = (1, 1),
    *, adaptive: bool = False, count_include_pad: bool = False, divisor: int | None = None,
) -> None:  # fmt: skip
    """`kind`, "max" or "avg", on these tensors. The size of `out` tells ceil mode."""
    sides = {"KERNEL": kernel, "STRIDE": stride, "PAD": padding, "DILATION": dilation}
    constants = {f"{name}_{axis}": side for name, pair in sides.items() for axis, side in zip("HW", pair, strict=True)}
    constants |= {"MAX": kind == "max", "ADAPTIVE": adaptive, "COUNT_PAD": count_include_pad, "DIVISOR": divisor}
    elementwise(pool2d, [*plane(x), *x.shape[2:]], index, count, block, out, **constants)


def adaptive(kind: str, x, index, count, block, out) -> None:
    """Windows as PyTorch's adaptive pools have them."""
    kernel = list(map(longest_part, x.shape[2:], out.shape[2:]))
    run(kind, x, index, count, block, out, kernel, (1, 1), (0, 0), adaptive=True)


def longest_part(size: int, parts: int) -> int:
    """At most so many pixels does one have of so many parts of `size` pixels, which may overlap by one."""
    return min(size, -(-size // parts) + 1)
