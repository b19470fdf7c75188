"""Convolutions, transposed or not: a product of matrices, pixels of active blocks by output channels, whose terms are
the taps of a window and the input channels of a group. Depthwise ones have a kernel of their own.

Weights are rounded to what maps store, sums are float32, and a result is rounded once, after bias, residual and
activation. Terms are added in one order, whatever else is active.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from sparseblock.backends.kept import kept
from sparseblock.backends.triton.epilogue import activate, activation_of, of_channels, vector
from sparseblock.backends.triton.launch import elementwise, launch, plane
from sparseblock.backends.triton.maps import at, pad_source, pixels_of, region_of, run_of, work_of
from sparseblock.backends.triton.values import added_product, rounded, widened
from sparseblock.errors import SparseBlockError


@triton.jit
def source_of(
    place, tap, size, STRIDE: tl.constexpr, PAD: tl.constexpr, DILATION: tl.constexpr,
    TRANSPOSED: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """Where along an axis of `size` pixels `tap` of output `place` reads; -1: nowhere."""
    if TRANSPOSED:
        reach = place + PAD - tap * DILATION
        source = reach // STRIDE
        return tl.where((reach >= 0) & (source * STRIDE == reach) & (source < size), source, -1)
    return pad_source(place * STRIDE - PAD + tap * DILATION, size, MODE)


@triton.jit
def finished(
    v, n, y, column, c, known, inside, bias, residual, residual_n, residual_y, residual_x, residual_c, slope, low, high,
    out, COMBINE: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """What is stored for sums `v` of channels `c`, of which `known` are some."""
    if bias is not None:
        v += of_channels(bias, c, known)
    if residual is not None:
        place = at(n, y, column, c * residual_c, residual_n, residual_y, residual_x)
        second = widened(tl.load(residual + place, mask=inside, other=0.0))
        v = v * second if COMBINE == "mul" else v + second
    return rounded(activate(v, c, known, slope, low, high, ACTIVATION), out)


@triton.jit
def conv2d_tiles(
    x, x_n, x_y, x_x, x_height, x_width, weight, bias,
    residual, residual_n, residual_y, residual_x, residual_c, slope, low, high,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width,
    IN: tl.constexpr, OUT: tl.constexpr, GROUPS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, TRANSPOSED: tl.constexpr, MODE: tl.constexpr,
    COMBINE: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, TERMS: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    """IN and OUT: channels of a group. Tiles of ROWS pixels, which may be of several blocks, and COLS channels; in each
    of STEPS steps TERMS are multiplied: of one tap, or, where it has fewer channels, of as many taps as that takes.
    """
    taps = KERNEL_H * KERNEL_W
    chunks = (IN + TERMS - 1) // TERMS
    across = tl.minimum(block_w, width)
    per_block = tl.minimum(block_h, height) * across
    columns = (OUT + COLS - 1) // COLS
    work = tl.cdiv(tl.load(count).to(tl.int64) * per_block, ROWS) * columns * GROUPS
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        group = item // columns % GROUPS
        i, place, listed = run_of(item // columns // GROUPS, per_block, tl.load(count), ROWS)
        n, top, left = region_of(index, i, block_h, block_w)
        y = top + place // across
        column = left + place % across
        listed = listed & (y < height) & (column < width)
        k = (item % columns * COLS).to(tl.int32) + tl.arange(0, COLS)[None, :]
        of_group = weight + group * (taps * IN * OUT)
        image = x + n * x_n + group * IN
        total = tl.zeros([ROWS, COLS], tl.float32)
        for step in range(STEPS):
            if IN >= TERMS:
                tap = step // chunks
                c = step % chunks * TERMS + tl.arange(0, TERMS)[None, :]
                known = c < IN
                term = tap * IN + step % chunks * TERMS + tl.arange(0, TERMS)[:, None]
                real = step % chunks * TERMS + tl.arange(0, TERMS)[:, None] < IN
            else:
                flat = step * TERMS + tl.arange(0, TERMS)[None, :]
                tap = flat // IN
                c = flat % IN
                known = flat < taps * IN
                term = step * TERMS + tl.arange(0, TERMS)[:, None]
                real = term < taps * IN
            row = source_of(y, tap // KERNEL_W, x_height, STRIDE_H, PAD_H, DILATION_H, TRANSPOSED, MODE)
            col = source_of(column, tap % KERNEL_W, x_width, STRIDE_W, PAD_W, DILATION_W, TRANSPOSED, MODE)
            read = row.to(tl.int64) * x_y + col.to(tl.int64) * x_x + c
            a = tl.load(image + read, mask=listed & known & (row >= 0) & (col >= 0), other=0.0)
            b = tl.load(of_group + term * OUT + k, mask=real & (k < OUT), other=0.0)
            total = added_product(a, b, total)
        known_k = k < OUT
        inside = listed & known_k
        k = group.to(tl.int32) * OUT + k
        v = finished(
            total, n, y, column, k, known_k, inside, bias, residual, residual_n, residual_y, residual_x, residual_c,
            slope, low, high, out, COMBINE, ACTIVATION,
        )  # fmt: skip
        tl.store(out + at(n, y, column, k, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


@triton.jit
def conv2d_depthwise(
    x, x_n, x_y, x_x, x_height, x_width, weight, bias,
    residual, residual_n, residual_y, residual_x, residual_c, slope, low, high,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, OUT: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, TRANSPOSED: tl.constexpr, MODE: tl.constexpr,
    COMBINE: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """OUT channels read one of x."""
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, k, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        known = k < channels
        total = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for r in range(KERNEL_H):
            row = source_of(y, r, x_height, STRIDE_H, PAD_H, DILATION_H, TRANSPOSED, MODE)
            for s in range(KERNEL_W):
                col = source_of(column, s, x_width, STRIDE_W, PAD_W, DILATION_W, TRANSPOSED, MODE)
                place = at(n, row, col, k // OUT, x_n, x_y, x_x)
                v = widened(tl.load(x + place, mask=inside & (row >= 0) & (col >= 0), other=0.0))
                total += v * of_channels(weight + (r * KERNEL_W + s) * channels, k, known)
        v = finished(
            total, n, y, column, k, known, inside, bias, residual, residual_n, residual_y, residual_x, residual_c,
            slope, low, high, out, COMBINE, ACTIVATION,
        )  # fmt: skip
        tl.store(out + at(n, y, column, k, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


def conv2d(
    x, weight, bias, index, count, block, out, stride, padding, dilation, groups,
    activation, slope, bounds, residual, combine, padding_mode, algorithm,
) -> None:  # fmt: skip
    if algorithm != "direct":
        raise SparseBlockError(f"conv2d: algorithm is {algorithm!r}, but the triton backend has 'direct' alone")
    sides = {"STRIDE": stride, "PAD": padding, "DILATION": dilation}
    fused = {"activation": activation, "slope": slope, "bounds": bounds, "residual": residual, "combine": combine}
    run(sides, padding_mode, False, x, weight, bias, index, count, block, out, groups, **fused)


def run(
    sides: dict[str, Sequence[int]], mode: str, transposed: bool, x, weight, bias, index, count, block, out, groups,
    *, activation, slope, bounds, residual, combine,
) -> None:  # fmt: skip
    """On these tensors. `sides`: by the name of the constant, (vertical, horizontal)."""
    constants = {
        f"{name}_{axis}": side
        for name, pair in {"KERNEL": weight.shape[2:], **sides}.items()
        for axis, side in zip("HW", pair, strict=True)
    }
    second = (None, 0, 0, 0, 0)
    if residual is not None:
        residual = residual.expand(out.shape)
        second = (*plane(residual), residual.stride(1))
    fused, epilogue = activation_of(activation, slope, bounds)
    in_group, out_group = x.shape[1] // groups, out.shape[1] // groups
    packed = kept(weight, ("triton", groups, transposed, x.dtype), lambda: _packed(weight, groups, transposed, x.dtype))
    constants |= {"OUT": out_group, "TRANSPOSED": transposed, "MODE": mode, "COMBINE": combine, **epilogue}
    arguments = [*plane(x), *x.shape[2:], packed, vector(bias), *second, *fused]
    if in_group == 1 and groups > 1:
        elementwise(conv2d_depthwise, arguments, index, count, block, out, **constants)
        return
    tile = _tile(in_group, out_group, weight.shape[2] * weight.shape[3], x.dtype)
    pixels = len(index) * min(block[0], out.shape[2]) * min(block[1], out.shape[3])
    work = -(-pixels // tile["ROWS"]) * -(-out_group // tile["COLS"]) * groups
    arguments += [index, count, *block, *plane(out), *out.shape[2:]]
    launch(conv2d_tiles, work, out.device, *arguments, share=2, IN=in_group, GROUPS=groups, **tile, **constants)


def _packed(weight: torch.Tensor, groups: int, transposed: bool, dtype: torch.dtype) -> torch.Tensor:
    """[groups, r, s, c / groups, k / groups], as maps are stored; with one input channel a group [r, s, k]."""
    by_group = weight.detach().unflatten(0, (groups, -1))
    by_group = by_group.permute(0, 3, 4, 1, 2) if transposed else by_group.permute(0, 3, 4, 2, 1)
    if by_group.shape[3] == 1 and groups > 1:
        by_group = by_group.permute(1, 2, 3, 0, 4)
    return by_group.to(dtype).contiguous()


def _tile(in_group: int, out_group: int, taps: int, dtype: torch.dtype) -> dict[str, int]:
    """Tensor cores multiply halves; float32 is multiplied as it is, for which smaller tiles fit into registers."""
    halves = dtype.itemsize == 2
    cols = min(max(triton.next_power_of_2(out_group), 16), 128 if halves else 64)
    terms = 64 if halves and in_group % 64 == 0 else 32
    steps = taps * -(-in_group // terms) if in_group >= terms else -(-taps * in_group // terms)
    warps = 8 if cols == 128 or in_group < terms else 4
    return {"ROWS": 128 if halves else 64, "COLS": cols, "TERMS": terms, "STEPS": steps, "num_warps": warps}
