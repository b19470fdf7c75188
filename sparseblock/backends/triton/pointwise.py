"""out = activation((x (+ or *) residual) * scale + shift): activations, sums, products, affine maps and copies.

A frame may be float32 where maps are halves, and need not be channels-last. What is only copied keeps its bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.epilogue import activate, activation_of, of_channels, vector
from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import rounded, widened


@triton.jit
def pointwise(
    x, x_n, x_y, x_x, x_c, residual, residual_n, residual_y, residual_x, residual_c, scale, shift, slope, low, high,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, COMBINE: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        v = tl.load(x + at(n, y, column, c * x_c, x_n, x_y, x_x), mask=inside, other=0.0)
        if residual is not None or scale is not None or ACTIVATION is not None or x.dtype != out.dtype:
            v = widened(v)
            if residual is not None:
                place = at(n, y, column, c * residual_c, residual_n, residual_y, residual_x)
                second = widened(tl.load(residual + place, mask=inside, other=0.0))
                v = v * second if COMBINE == "mul" else v + second
            if scale is not None:
                v = v * of_channels(scale, c, c < channels) + of_channels(shift, c, c < channels)
            v = rounded(activate(v, c, c < channels, slope, low, high, ACTIVATION), out)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


def run(
    x, index, count, block, out,
    *, residual=None, combine="add", scale=None, shift=None, activation=None, slope=None, bounds=None,
) -> None:  # fmt: skip
    """On these tensors; the residual is broadcast to the shape of `out`."""
    second = (None, 0, 0, 0, 0)
    if residual is not None:
        residual = residual.expand(out.shape)
        second = (*plane(residual), residual.stride(1))
    fused, constants = activation_of(activation, slope, bounds)
    arguments = [*plane(x), x.stride(1), *second, vector(scale), vector(shift), *fused]
    elementwise(pointwise, arguments, index, count, block, out, COMBINE=combine, **constants)
