/* gather: packed[i] = the i-th active block of x with `halo` more pixels on every side, zeros outside of the frame.
 * scatter: the inverse for halo 0; writes are clipped to the frame. Rows are copied whole where pixels are contiguous. */
#include <string.h>

#include "parallel.h"
#include "sparseblock.h"

namespace {

struct Span {
    int64_t first, last; /* pixels [first, last) of a block's row or column that lie in [0, size) */
    Span(int64_t origin, int64_t length, int64_t size) {
        first = origin < 0 ? -origin : 0;
        last = size - origin < length ? size - origin : length;
        if (first > length) first = length;
        if (last < first) last = first;
    }
};

int64_t element_bytes(const sb_plane &plane) { return plane.dtype == SB_F32 ? 4 : 2; }

/* Strides and lengths in bytes. */
void copy_pixels(char *dst, int64_t dst_stride, const char *src, int64_t src_stride, int64_t pixels, int64_t length) {
    if (dst_stride == length && src_stride == length) {
        memcpy(dst, src, pixels * length);
        return;
    }
    for (int64_t i = 0; i < pixels; ++i) memcpy(dst + i * dst_stride, src + i * src_stride, length);
}

} // namespace

void sb_gather_run(const sb_plane *x, const sb_blocks *blocks, int halo, void *packed, int threads) {
    const int64_t rows = blocks->block_h + 2 * (int64_t)halo, cols = blocks->block_w + 2 * (int64_t)halo;
    const int64_t bytes = element_bytes(*x), c = x->c * bytes;
    const int64_t count = *blocks->count;
    sb::parallel_for(count, threads, [&](int64_t i) {
        const int32_t *index = blocks->index + 3 * i;
        const int64_t top = (int64_t)index[1] * blocks->block_h - halo, left = (int64_t)index[2] * blocks->block_w - halo;
        const Span y(top, rows, x->h), s(left, cols, x->w);
        for (int64_t r = 0; r < rows; ++r) {
            char *row = (char *)packed + (i * rows + r) * cols * c;
            if (r < y.first || r >= y.last) {
                memset(row, 0, cols * c);
                continue;
            }
            const char *src =
                (const char *)x->data + bytes * (index[0] * x->stride_n + (top + r) * x->stride_y + (left + s.first) * x->stride_x);
            memset(row, 0, s.first * c);
            copy_pixels(row + s.first * c, c, src, bytes * x->stride_x, s.last - s.first, c);
            memset(row + s.last * c, 0, (cols - s.last) * c);
        }
    });
}

void sb_scatter_run(const void *packed, const sb_blocks *blocks, const sb_plane *out, int threads) {
    const int64_t rows = blocks->block_h, cols = blocks->block_w;
    const int64_t bytes = element_bytes(*out), c = out->c * bytes;
    const int64_t count = *blocks->count;
    sb::parallel_for(count, threads, [&](int64_t i) {
        const int32_t *index = blocks->index + 3 * i;
        const int64_t top = index[1] * rows, left = index[2] * cols;
        const Span y(top, rows, out->h), s(left, cols, out->w);
        for (int64_t r = y.first; r < y.last; ++r) {
            char *dst = (char *)out->data + bytes * (index[0] * out->stride_n + (top + r) * out->stride_y + left * out->stride_x);
            copy_pixels(dst, bytes * out->stride_x, (const char *)packed + (i * rows + r) * cols * c, c, s.last, c);
        }
    });
}
