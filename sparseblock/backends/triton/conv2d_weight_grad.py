"""The gradient of a convolution's weight: a product of matrices, output channels of a group by its taps and input
channels, whose terms are the pixels of active blocks, one after another. They are cut into shares, whose sums are then
added in one order. Depthwise ones have a kernel of their own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparseblock.backends.gradients.shares import shares
from sparseblock.backends.triton.launch import launch, plane
from sparseblock.backends.triton.maps import at, region_of, run_of
from sparseblock.backends.triton.values import added_product

_TILE = 64  # channels, and taps by channels, of a program
_PIXELS = 32  # that it multiplies at a time
_OPTIONS = {"num_warps": 8, "num_stages": 1}  # with fewer warps, or a pipeline, registers are spilled
_DEPTHWISE = {"CHANNELS": 32, "PIXELS": 64}


@triton.jit
def share_of(number, shares, count, block_h, block_w, height, width, PIXELS: tl.constexpr):
    """Where share `number` begins, and how many steps of PIXELS pixels it has."""
    pixels = tl.load(count).to(tl.int64) * (tl.minimum(block_h, height) * tl.minimum(block_w, width))
    steps = tl.cdiv(pixels, PIXELS)
    each = tl.cdiv(steps, shares)
    first = tl.minimum(number * each, steps)
    return first, tl.minimum(each, steps - first)


@triton.jit
def pixels_of_step(step, index, count, block_h, block_w, height, width, PIXELS: tl.constexpr):
    """Image, row and column of the pixels of a step, and which of them there are: all [PIXELS, 1]."""
    across = tl.minimum(block_w, width)
    i, place, listed = run_of(step, tl.minimum(block_h, height) * across, tl.load(count), PIXELS)
    n, top, left = region_of(index, i, block_h, block_w)
    y = top + place // across
    x = left + place % across
    return n, y, x, listed & (y < height) & (x < width)


@triton.jit
def conv2d_weight_grads(
    x, x_n, x_y, x_x, x_height, x_width, grad, grad_n, grad_y, grad_x, height, width,
    index, count, block_h, block_w, sums, shares,
    IN: tl.constexpr, OUT: tl.constexpr, GROUPS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """IN and OUT: channels of a group. sums: [shares, GROUPS, OUT, taps, IN]."""
    terms: tl.constexpr = KERNEL_H * KERNEL_W * IN
    rows: tl.constexpr = (OUT + ROWS - 1) // ROWS
    cols: tl.constexpr = (terms + COLS - 1) // COLS
    item = tl.program_id(0).to(tl.int64)
    while item < shares * GROUPS * rows * cols:
        k = (item // cols % rows * ROWS).to(tl.int32) + tl.arange(0, ROWS)[None, :]
        term = (item % cols * COLS).to(tl.int32) + tl.arange(0, COLS)[None, :]
        group = item // (cols * rows) % GROUPS
        number = item // (cols * rows * GROUPS)
        tap = term // IN
        c = group.to(tl.int32) * IN + term % IN
        down = tap // KERNEL_W * DILATION_H - PAD_H
        along = tap % KERNEL_W * DILATION_W - PAD_W
        total = tl.zeros([ROWS, COLS], tl.float32)
        first, steps = share_of(number, shares, count, block_h, block_w, height, width, PIXELS)
        for step in range(steps):
            n, oy, ox, there = pixels_of_step(first + step, index, count, block_h, block_w, height, width, PIXELS)
            of_grad = grad + at(n, oy, ox, group.to(tl.int32) * OUT + k, grad_n, grad_y, grad_x)
            a = tl.load(of_grad, mask=there & (k < OUT), other=0.0)
            y = oy * STRIDE_H + down
            column = ox * STRIDE_W + along
            real = there & (term < terms) & (y >= 0) & (y < x_height) & (column >= 0) & (column < x_width)
            b = tl.load(x + at(n, y, column, c, x_n, x_y, x_x), mask=real, other=0.0)
            total = added_product(tl.trans(a), b, total)
        place = ((number * GROUPS + group) * OUT + tl.trans(k)) * terms + term
        tl.store(sums + place, total, mask=(tl.trans(k) < OUT) & (term < terms))
        item += tl.num_programs(0)


@triton.jit
def conv2d_depthwise_weight_grads(
    x, x_n, x_y, x_x, x_height, x_width, grad, grad_n, grad_y, grad_x, height, width, channels,
    index, count, block_h, block_w, sums, shares,
    OUT: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """OUT channels read one of x. A program takes a tap of CHANNELS channels. sums: [shares, channels, taps]."""
    taps: tl.constexpr = KERNEL_H * KERNEL_W
    chunks = tl.cdiv(channels, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < shares * chunks * taps:
        tap = (item % taps).to(tl.int32)
        k = (item // taps % chunks * CHANNELS).to(tl.int32) + tl.arange(0, CHANNELS)[None, :]
        number = item // (taps * chunks)
        total = tl.zeros([PIXELS, CHANNELS], tl.float32)
        first, steps = share_of(number, shares, count, block_h, block_w, height, width, PIXELS)
        for step in range(steps):
            n, oy, ox, there = pixels_of_step(first + step, index, count, block_h, block_w, height, width, PIXELS)
            there = there & (k < channels)
            y = oy * STRIDE_H + tap // KERNEL_W * DILATION_H - PAD_H
            column = ox * STRIDE_W + tap % KERNEL_W * DILATION_W - PAD_W
            real = there & (y >= 0) & (y < x_height) & (column >= 0) & (column < x_width)
            v = tl.load(x + at(n, y, column, k // OUT, x_n, x_y, x_x), mask=real, other=0.0)
            total += v * tl.load(grad + at(n, oy, ox, k, grad_n, grad_y, grad_x), mask=there, other=0.0)
        place = (number * channels + k) * taps + tap
        tl.store(sums + place, tl.sum(total, axis=0)[None, :], mask=k < channels)
        item += tl.num_programs(0)


def conv2d_weight_grad(x, grad, index, count, block, conv, shape) -> torch.Tensor:
    """Float32 of `shape`: of the weight of `conv`, from x to a map whose gradient is `grad`, of active blocks."""
    k, in_group, *kernel = shape
    taps, out_group = kernel[0] * kernel[1], k // conv.groups
    names = ("KERNEL", "STRIDE", "PAD", "DILATION")
    constants = {f"{name}_{axis}": getattr(conv, f"{name}_{axis}".lower()) for name in names for axis in "HW"}
    if in_group == 1 and conv.groups > 1:
        kernel_of, channels = conv2d_depthwise_weight_grads, [k]
        constants |= _DEPTHWISE
        tiles = taps * -(-k // constants["CHANNELS"])
    else:
        kernel_of, channels = conv2d_weight_grads, []
        rows, cols = (min(max(triton.next_power_of_2(side), 16), _TILE) for side in (out_group, taps * in_group))
        constants |= {"ROWS": rows, "COLS": cols, "PIXELS": _PIXELS, "IN": in_group, "GROUPS": conv.groups} | _OPTIONS
        tiles = conv.groups * -(-out_group // rows) * -(-taps * in_group // cols)
    pixels = len(index) * min(block[0], grad.shape[2]) * min(block[1], grad.shape[3])
    parts = shares(tiles, pixels)
    sums = torch.empty(parts, k, *kernel, in_group, dtype=torch.float32, device=x.device)
    arguments = [*plane(x), *x.shape[2:], *plane(grad), *grad.shape[2:], *channels, index, count, *block, sums, parts]
    launch(kernel_of, tiles * parts, x.device, *arguments, OUT=out_group, **constants)
    return sums.sum(0).permute(0, 3, 1, 2)
