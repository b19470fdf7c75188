"""gather of the triton backend: packed[i] = the i-th active block of x with `halo` more pixels on every side, zeros
outside of the frame. Moves bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.launch import launch, plane, tiles
from sparseblock.backends.triton.maps import at, piece_of, pieces_of, region_of


@triton.jit
def gather_blocks(
    x, x_n, x_y, x_x, height, width, index, count, block_h, block_w,
    packed, packed_n, packed_y, packed_x, channels, halo, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    across = block_w + 2 * halo
    maps = tl.load(count)
    per_map = (block_h + 2 * halo) * across
    work = pieces_of(maps, per_map, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        i, place, c, inside = piece_of(item, maps, per_map, channels, PIXELS, CHANNELS)
        n, top, left = region_of(index, i, block_h, block_w)
        y = top - halo + place // across
        column = left - halo + place % across
        real = inside & (y >= 0) & (y < height) & (column >= 0) & (column < width)
        v = tl.load(x + at(n, y, column, c, x_n, x_y, x_x), mask=real, other=0.0)
        tl.store(packed + at(i, place // across, place % across, c, packed_n, packed_y, packed_x), v, mask=inside)
        item += tl.num_programs(0)


def gather(x, index, count, block, out, halo) -> None:
    work, tile = tiles(len(out) * out.shape[2] * out.shape[3], out.shape[1])
    arguments = [*plane(x), *x.shape[2:], index, count, *block, *plane(out), out.shape[1], halo]
    launch(gather_blocks, work, out.device, *arguments, **tile)
