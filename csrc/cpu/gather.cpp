/* gather: packed[i] = the i-th active block of x with `halo` more pixels on every side, zeros outside of the frame.
 * scatter: the inverse for halo 0; writes are clipped to the frame. Rows are copied whole where pixels are contiguous. */
#include <string.h>

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

void copy_pixels(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t pixels, int64_t channels) {
    if (dst_stride == channels && src_stride == channels) {
        memcpy(dst, src, sizeof(float) * pixels * channels);
        return;
    }
    for (int64_t i = 0; i < pixels; ++i) memcpy(dst + i * dst_stride, src + i * src_stride, sizeof(float) * channels);
}

} // namespace

void sb_gather_run(const sb_plane *x, const sb_blocks *blocks, int halo, float *packed, int threads) {
    const int64_t rows = blocks->block_h + 2 * (int64_t)halo, cols = blocks->block_w + 2 * (int64_t)halo, c = x->c;
    const int64_t count = *blocks->count;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && count > 1)
    for (int64_t i = 0; i < count; ++i) {
        const int32_t *index = blocks->index + 3 * i;
        const int64_t top = (int64_t)index[1] * blocks->block_h - halo, left = (int64_t)index[2] * blocks->block_w - halo;
        const Span y(top, rows, x->h), s(left, cols, x->w);
        for (int64_t r = 0; r < rows; ++r) {
            float *row = packed + (i * rows + r) * cols * c;
            if (r < y.first || r >= y.last) {
                memset(row, 0, sizeof(float) * cols * c);
                continue;
            }
            const float *src = x->data + index[0] * x->stride_n + (top + r) * x->stride_y + (left + s.first) * x->stride_x;
            memset(row, 0, sizeof(float) * s.first * c);
            copy_pixels(row + s.first * c, c, src, x->stride_x, s.last - s.first, c);
            memset(row + s.last * c, 0, sizeof(float) * (cols - s.last) * c);
        }
    }
}

void sb_scatter_run(const float *packed, const sb_blocks *blocks, const sb_plane *out, int threads) {
    const int64_t rows = blocks->block_h, cols = blocks->block_w, c = out->c;
    const int64_t count = *blocks->count;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && count > 1)
    for (int64_t i = 0; i < count; ++i) {
        const int32_t *index = blocks->index + 3 * i;
        const int64_t top = index[1] * rows, left = index[2] * cols;
        const Span y(top, rows, out->h), s(left, cols, out->w);
        for (int64_t r = y.first; r < y.last; ++r) {
            float *dst = out->data + index[0] * out->stride_n + (top + r) * out->stride_y + left * out->stride_x;
            copy_pixels(dst, out->stride_x, packed + (i * rows + r) * cols * c, c, s.last, c);
        }
    }
}
