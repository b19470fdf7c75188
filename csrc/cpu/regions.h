/* The rectangles of output that a kernel works on: the active blocks, cut into strips of bounded size, or, where there is no
 * list of blocks (a dense step), strips that tile every image. Numbered, so that threads can share them. */
#pragma once

#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

struct Region {
    int64_t n, y0, x0, y1, x1; /* pixels of the output, ends exclusive, clipped to the frame; empty when y0 >= y1 or x0 >= x1 */
};

/* Channel 0 of a pixel; T is the plane's storage type. */
template <class T>
SB_INLINE T *pixel(const sb_plane &plane, int64_t n, int64_t y, int64_t x) {
    return (T *)plane.data + n * plane.stride_n + y * plane.stride_y + x * plane.stride_x;
}

/* Calls f(T()) with the storage type T that `dtype` names. */
template <class F>
void with_storage(int dtype, F f) {
    switch (dtype) {
    case SB_BF16:
        return f(bf16());
    case SB_F16:
        return f(f16());
    default:
        return f(float());
    }
}

struct Regions {
    const int32_t *index; /* NULL: dense */
    int64_t height, width;
    int64_t block_h, block_w, rows, cols; /* block size; strips per block along each axis (dense: blocks per image) */
    int64_t strip_h, strip_w;             /* largest strip */
    int64_t count;

    /* Strips of at most `max_w` columns and `max_h` rows, and about `pixels` pixels. */
    Regions(const sb_blocks *blocks, const sb_plane &out, int64_t pixels, int64_t max_w, int64_t max_h = INT64_MAX) {
        index = blocks ? blocks->index : nullptr;
        height = out.h;
        width = out.w;
        block_h = blocks ? minimum(blocks->block_h, height) : height;
        block_w = blocks ? minimum(blocks->block_w, width) : width;
        cols = ceil_div(block_w, max_w);
        strip_w = ceil_div(block_w, cols);
        rows = ceil_div(block_h, minimum(maximum(pixels / maximum(strip_w, 1), 1), max_h));
        strip_h = ceil_div(block_h, maximum(rows, 1));
        if (blocks) {
            block_h = blocks->block_h;
            block_w = blocks->block_w;
        }
        count = (blocks ? *blocks->count : out.n) * rows * cols;
    }

    Region operator[](int64_t i) const {
        int64_t block = i / (rows * cols), strip = i % (rows * cols);
        int64_t n = block, top = 0, left = 0;
        if (index) {
            n = index[3 * block];
            top = index[3 * block + 1] * block_h;
            left = index[3 * block + 2] * block_w;
        }
        Region region;
        region.n = n;
        region.y0 = top + strip / cols * strip_h;
        region.x0 = left + strip % cols * strip_w;
        region.y1 = minimum(minimum(region.y0 + strip_h, top + block_h), height);
        region.x1 = minimum(minimum(region.x0 + strip_w, left + block_w), width);
        return region;
    }
};

} // namespace sb::SB_ISA
