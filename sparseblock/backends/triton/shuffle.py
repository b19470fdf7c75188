"""pixel_shuffle, pixel_unshuffle and channel_shuffle of PyTorch. All move bits: what is stored is gathered."""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.launch import elementwise, plane
from sparseblock.backends.triton.maps import at, pixels_of, work_of


@triton.jit
def shuffled(
    x, x_n, x_y, x_x, index, count, block_h, block_w, out, out_n, out_y, out_x, height, width, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, KIND: tl.constexpr, FACTOR: tl.constexpr,
):  # fmt: skip
    work = work_of(count, block_h, block_w, height, width, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        n, y, column, c, inside = pixels_of(
            item, index, count, block_h, block_w, height, width, channels, PIXELS, CHANNELS
        )
        if KIND == "pixel_shuffle":
            row, col = y // FACTOR, column // FACTOR
            channel = c * (FACTOR * FACTOR) + y % FACTOR * FACTOR + column % FACTOR
        elif KIND == "pixel_unshuffle":
            row, col = y * FACTOR + c % (FACTOR * FACTOR) // FACTOR, column * FACTOR + c % FACTOR
            channel = c // (FACTOR * FACTOR)
        else:
            row, col = y, column
            channel = c % FACTOR * (channels // FACTOR) + c // FACTOR
        v = tl.load(x + at(n, row, col, channel, x_n, x_y, x_x), mask=inside, other=0.0)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


def shuffle(kind: str, x, index, count, block, out, factor: int) -> None:
    """`kind`: the name of the op."""
    elementwise(shuffled, plane(x), index, count, block, out, KIND=kind, FACTOR=factor)
