/* Where the elements of active blocks are, and how groups share them. */
#pragma once

#include "device.h"

namespace sb {

template <class T>
SB_DEVICE T *pixel(const sb_plane &plane, int64_t n, int64_t y, int64_t x) {
    return (T *)plane.data + n * plane.stride_n + y * plane.stride_y + x * plane.stride_x;
}

/* The active blocks of `out`, clipped to it; without a count every image is one block (an empty list has a count, and may
 * have no index). The count is read where it is. */
struct Regions {
    const sb_blocks &blocks;
    const sb_plane &out;

    SB_DEVICE Regions(const sb_blocks &blocks_, const sb_plane &out_) : blocks(blocks_), out(out_) {}
    SB_DEVICE int64_t count() const { return blocks.count ? *blocks.count : out.n; }
    SB_DEVICE int64_t height() const { return blocks.count ? minimum(blocks.block_h, out.h) : out.h; }
    SB_DEVICE int64_t width() const { return blocks.count ? minimum(blocks.block_w, out.w) : out.w; }
};

struct Region {
    int64_t n, y0, x0, y1, x1; /* pixels [y0, y1) x [x0, x1) */

    SB_DEVICE Region(const Regions &regions, int64_t i) {
        if (regions.blocks.count) {
            const int32_t *index = regions.blocks.index + 3 * i;
            n = index[0];
            y0 = (int64_t)index[1] * regions.blocks.block_h;
            x0 = (int64_t)index[2] * regions.blocks.block_w;
        } else {
            n = i;
            y0 = x0 = 0;
        }
        y1 = minimum(y0 + regions.height(), regions.out.h);
        x1 = minimum(x0 + regions.width(), regions.out.w);
    }
};

/* Calls begin(i) for maps i of `count`, of [height, width, channels], and what it returns, (y, x, c), for every N channels from c
 * on of their pixels: adjacent threads take adjacent channels, and a group ITEMS of them for each of its threads at a time, so that
 * maps of any size keep every group busy. */
template <int N, class F>
SB_DEVICE void for_each_of(int64_t count, int64_t height, int64_t width, int64_t channels, const F &begin) {
    constexpr int ITEMS = 4;
    const int64_t vectors = channels / N, row = width * vectors, all = height * row;
    const int64_t pieces = ceil_div(all, thread_count() * ITEMS), work = count * pieces;
    for (int64_t i = group_index(); i < work; i += group_count()) {
        const auto take = begin(i / pieces);
        const int64_t first = i % pieces * (thread_count() * ITEMS) + thread_index();
        for (int k = 0; k < ITEMS; ++k) {
            const int64_t item = first + k * thread_count(), along = item % row;
            if (item < all) take(item / row, along / vectors, along % vectors * N);
        }
    }
}

/* Calls f(n, y, x, c) for every N channels from c on of every pixel of the active blocks. */
template <int N, class F>
SB_DEVICE void for_each(const sb_blocks &blocks, const sb_plane &out, const F &f) {
    const Regions regions(blocks, out);
    for_each_of<N>(regions.count(), regions.height(), regions.width(), out.c, [&](int64_t i) {
        const Region region(regions, i);
        return [&f, region](int64_t down, int64_t along, int64_t c) {
            const int64_t y = region.y0 + down, x = region.x0 + along;
            if (y < region.y1 && x < region.x1) f(region.n, y, x, c);
        };
    });
}

} // namespace sb
