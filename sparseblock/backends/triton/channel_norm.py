"""softmax, normalize and layer_norm over the channels of a pixel: csrc/cpu/channel_norm.cpp has the formulas. A program
takes PIXELS pixels, CHANNELS of their channels at a time, and reads them two or three times, from the cache. Sums are
in double precision. NaN anywhere in a pixel is NaN everywhere in it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton import math
from sparseblock.backends.triton.cells import cells_of, widths
from sparseblock.backends.triton.epilogue import activate, activation_of, of_channels, vector
from sparseblock.backends.triton.launch import launch, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of
from sparseblock.backends.triton.values import rounded, widened


@triton.jit
def channels_normalized(
    x, x_n, x_y, x_x, weight, bias, slope, low, high,
    index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, KIND: tl.constexpr, EPS: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, 1, PIXELS, 1)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, _, inside = pixels_of(item, index, count, block_h, block_w, height, width, 1, PIXELS, 1)
        pixel = x + at(n, y, column, 0, x_n, x_y, x_x)
        # What is taken off, in float32 of a softmax and in double precision of a layer norm.
        center = tl.full([PIXELS, 1], float("-inf") if KIND == "softmax" else 0.0, tl.float64)
        if KIND != "normalize":
            channel = 0
            while channel < channels:
                c = channel + tl.arange(0, CHANNELS)[None, :]
                known = inside & (c < channels)
                v = widened(tl.load(pixel + c, mask=known, other=0.0)).to(tl.float64)
                if KIND == "softmax":
                    most = tl.max(tl.where(known, v, float("-inf")), axis=1)[:, None]
                    center = tl.where(most > center, most, center)
                else:
                    center += tl.sum(v, axis=1)[:, None]
                channel += CHANNELS
        if KIND == "layer_norm":
            center /= channels
        total = tl.zeros([PIXELS, 1], tl.float64)
        channel = 0
        while channel < channels:
            c = channel + tl.arange(0, CHANNELS)[None, :]
            known = inside & (c < channels)
            v = widened(tl.load(pixel + c, mask=known, other=0.0))
            if KIND == "softmax":
                term = math.exp(v - center.to(tl.float32), 0.0).to(tl.float64)
            else:
                term = (v.to(tl.float64) - center) * (v.to(tl.float64) - center)
            total += tl.sum(tl.where(known, term, 0.0), axis=1)[:, None]
            channel += CHANNELS
        if KIND == "normalize":
            total = tl.sqrt(total)
            total = tl.where(total < EPS, EPS, total)
        elif KIND == "layer_norm":
            total = tl.sqrt(total / channels + EPS)
        factor = 1.0 / tl.where(inside, total, 1.0)
        channel = 0
        while channel < channels:
            c = channel + tl.arange(0, CHANNELS)[None, :]
            known = inside & (c < channels)
            v = widened(tl.load(pixel + c, mask=known, other=0.0))
            if KIND == "softmax":
                v = (math.exp(v - center.to(tl.float32), 0.0).to(tl.float64) * factor).to(tl.float32)
            else:
                v = ((v.to(tl.float64) - center) * factor).to(tl.float32)
            if weight is not None:
                v = v * of_channels(weight, c, c < channels)
            if bias is not None:
                v = v + of_channels(bias, c, c < channels)
            v = rounded(activate(v, c, c < channels, slope, low, high, ACTIVATION), out)
            tl.store(out + at(n, y, column, c, out_n, out_y, out_x), v, mask=known)
            channel += CHANNELS
        item += tl.num_programs(0)


def channel_norm(
    kind: str, x, index, count, block, out,
    *, eps=0.0, weight=None, bias=None, activation=None, slope=None, bounds=None,
) -> None:  # fmt: skip
    """`kind`: the name of the op."""
    fused, constants = activation_of(activation, slope, bounds)
    tile = widths(out.shape[1])
    arguments = [*plane(x), vector(weight), vector(bias), *fused, index, count, *block, *plane(out), *out.shape[2:]]
    work = -(-len(index) * cells_of(block, out) // tile["PIXELS"])
    launch(channels_normalized, work, out.device, *arguments, out.shape[1], KIND=kind, EPS=eps, **tile, **constants)
