"""scatter of the triton backend: the i-th active block of out = packed[i], clipped to the frame. Moves bits."""

from __future__ import annotations

import triton
import triton.language as tl

from sparseblock.backends.triton.launch import launch, plane, tiles
from sparseblock.backends.triton.maps import at, piece_of, pieces_of, region_of


@triton.jit
def scatter_blocks(
    packed, packed_n, packed_y, packed_x, index, count, block_h, block_w,
    out, out_n, out_y, out_x, height, width, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    maps = tl.load(count)
    work = pieces_of(maps, block_h * block_w, channels, PIXELS, CHANNELS)
    item = tl.program_id(0).to(tl.int64)
    while item < work:
        i, place, c, inside = piece_of(item, maps, block_h * block_w, channels, PIXELS, CHANNELS)
        n, top, left = region_of(index, i, block_h, block_w)
        y = top + place // block_w
        column = left + place % block_w
        inside = inside & (y < height) & (column < width)
        read = at(i, place // block_w, place % block_w, c, packed_n, packed_y, packed_x)
        v = tl.load(packed + read, mask=inside, other=0.0)
        tl.store(out + at(n, y, column, c, out_n, out_y, out_x), v, mask=inside)
        item += tl.num_programs(0)


def scatter(packed, index, count, block, out) -> None:
    work, tile = tiles(len(packed) * packed.shape[2] * packed.shape[3], packed.shape[1])
    arguments = [*plane(packed), index, count, *block, *plane(out), *out.shape[2:], out.shape[1]]
    launch(scatter_blocks, work, out.device, *arguments, **tile)
