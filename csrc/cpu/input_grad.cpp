/* Gradients of pooling and resizing with respect to their input. Every pixel of the active blocks of grad_out adds to the
 * input pixels that it was made of. Threads share out channels, never pixels: whatever their number, each sum is one chain
 * in the order of the list of blocks. grad_x is added to, and holds zeros at first. */
#include "interpolate.h"
#include "kernels.h"
#include "parallel.h"
#include "pool2d.h"
#include "regions.h"
#include "vec.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 128, STRIP_COLUMNS = 128;

/* Calls f(region, first channel, last channel) for all strips and the channels of each thread. */
template <class F>
void for_each_share(const sb_plane &grad_out, const sb_blocks *blocks, int threads, F f) {
    const Regions regions(blocks, grad_out, STRIP_PIXELS, STRIP_COLUMNS);
    const int64_t vectors = ceil_div(grad_out.c, W);
    threads = (int)minimum(threads, vectors);
    on_threads(threads, [&](int share) {
        const int64_t first = stretch_end(vectors, threads, share - 1) * W;
        const int64_t last = minimum(stretch_end(vectors, threads, share) * W, grad_out.c);
        for (int64_t i = 0; i < regions.count; ++i) f(regions[i], first, last);
    });
}

SB_INLINE void add(float *to, const float *grad, float weight, int64_t first, int64_t last) {
    int64_t c = first;
    for (; c + W <= last; c += W) store(to + c, fma(load(grad + c), splat(weight), load(to + c)));
    const int tail = (int)(last - c);
    if (tail) store(to + c, fma(load(grad + c, tail), splat(weight), load(to + c, tail)), tail);
}

struct Tap {
    int64_t row, col;
};

/* The tap that a maximum of one channel came from: the first largest, or the last NaN, as in PyTorch. */
Tap largest(const float *origin, int64_t rows, int64_t cols, int64_t step_y, int64_t step_x) {
    Tap best = {0, 0};
    float most = *origin;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t s = 0; s < cols; ++s) {
            const float v = origin[r * step_y + s * step_x];
            if (!(v > most) && v == v) continue;
            best = {r, s};
            most = v;
        }
    return best;
}

void pool_strip(const sb_pool2d &pool, const sb_plane &x, const sb_plane &grad_out, const sb_plane &grad_x, const Region &region,
                int64_t first, int64_t last) {
    const Axis ay = vertical(pool, grad_x, grad_out), ax = horizontal(pool, grad_x, grad_out);
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const int64_t top = ay.origin(y);
        const Taps ty(top, ay.length(y), ay.dilation, grad_x.h);
        for (int64_t ox = region.x0; ox < region.x1; ++ox) {
            const int64_t left = ax.origin(ox);
            const Taps tx(left, ax.length(ox), ax.dilation, grad_x.w);
            const int64_t rows = ty.last - ty.first, cols = tx.last - tx.first;
            if (!rows || !cols) continue;
            const int64_t from_y = top + ty.first * ay.dilation, from_x = left + tx.first * ax.dilation;
            const float *grad = pixel<const float>(grad_out, region.n, y, ox);
            if (pool.kind == SB_POOL_AVG) {
                const float weight = 1.0f / divisor(pool, grad_x, top, left, rows * cols);
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t s = 0; s < cols; ++s)
                        add(pixel<float>(grad_x, region.n, from_y + r, from_x + s), grad, weight, first, last); /* dilation 1 */
                continue;
            }
            const float *origin = pixel<const float>(x, region.n, from_y, from_x);
            const int64_t step_y = ay.dilation * x.stride_y, step_x = ax.dilation * x.stride_x;
            for (int64_t c = first; c < last; ++c) {
                const Tap tap = largest(origin + c, rows, cols, step_y, step_x);
                pixel<float>(grad_x, region.n, from_y + tap.row * ay.dilation, from_x + tap.col * ax.dilation)[c] += grad[c];
            }
        }
    }
}

void resize_strip(const sb_interpolate &resize, const sb_plane &grad_out, const sb_plane &grad_x, const Region &region, int64_t first,
                  int64_t last) {
    for (int64_t oy = region.y0; oy < region.y1; ++oy) {
        const Source y = source(resize, resize.scale_h, oy, grad_x.h);
        for (int64_t ox = region.x0; ox < region.x1; ++ox) {
            const Source s = source(resize, resize.scale_w, ox, grad_x.w);
            const float *grad = pixel<const float>(grad_out, region.n, oy, ox);
            if (resize.mode == SB_NEAREST) {
                add(pixel<float>(grad_x, region.n, y.near, s.near), grad, 1.0f, first, last);
                continue;
            }
            const float wy = y.far_weight, wx = s.far_weight;
            add(pixel<float>(grad_x, region.n, y.near, s.near), grad, (1 - wy) * (1 - wx), first, last);
            add(pixel<float>(grad_x, region.n, y.near, s.far), grad, (1 - wy) * wx, first, last);
            add(pixel<float>(grad_x, region.n, y.far, s.near), grad, wy * (1 - wx), first, last);
            add(pixel<float>(grad_x, region.n, y.far, s.far), grad, wy * wx, first, last);
        }
    }
}

} // namespace

void pool2d_input_grad_run(const sb_pool2d &pool, const sb_plane &x, const sb_plane &grad_out, const sb_blocks *blocks,
                           const sb_plane &grad_x, int threads) {
    for_each_share(grad_out, blocks, threads, [&](const Region &region, int64_t first, int64_t last) {
        pool_strip(pool, x, grad_out, grad_x, region, first, last);
    });
}

void interpolate_input_grad_run(const sb_interpolate &resize, const sb_plane &grad_out, const sb_blocks *blocks,
                                const sb_plane &grad_x, int threads) {
    for_each_share(grad_out, blocks, threads, [&](const Region &region, int64_t first, int64_t last) {
        resize_strip(resize, grad_out, grad_x, region, first, last);
    });
}

} // namespace sb::SB_ISA
