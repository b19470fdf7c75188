/* Single pixels of a map. One thread: what takes time is that every pixel lies elsewhere in memory, so they are asked for ahead. */
#include "sparseblock.h"

void sb_sample_run(const sb_plane *x, const int64_t *ys, int rows, const int64_t *xs, int cols, float *out) {
    constexpr int AHEAD = 16;
    const int64_t count = (int64_t)rows * cols, c = x->c;
    auto place = [&](int64_t i) { return (const float *)x->data + ys[i / cols] * x->stride_y + xs[i % cols] * x->stride_x; };
    for (int64_t i = 0; i < count; ++i) {
        if (i + AHEAD < count) {
            const float *next = place(i + AHEAD);
            for (int64_t k = 0; k < c; k += x->stride_c == 1 ? 16 : 1) __builtin_prefetch(next + k * x->stride_c);
        }
        const float *from = place(i);
        for (int64_t k = 0; k < c; ++k) out[i * c + k] = from[k * x->stride_c];
    }
}
