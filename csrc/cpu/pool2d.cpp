/* Maximum and average pooling: out[n, y, x, c] over the window of input pixels at y*stride - pad + r*dilation that lie in the
 * frame (the border is not read: for a maximum its zeros would count). Planes NHWC, vectors along the channels, rows of
 * the window outermost. Sums and maxima go through the window in one fixed order. */
#include "kernels.h"
#include "parallel.h"
#include "pool2d.h"
#include "regions.h"
#include "vec.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_TAPS = 1024, STRIP_PIXELS = 128, STRIP_COLUMNS = 128;

template <class T>
struct Window {
    const T *origin; /* first tap inside of the frame */
    int64_t rows, cols, step_y, step_x;
    float divisor, outside; /* outside: of the maximum, where a part of the window lies there */
};

template <class T>
SB_INLINE vec read(const T *p, int lanes) { return lanes == W ? load(p) : load(p, lanes); }

template <int KIND, class T>
SB_INLINE vec reduce(const Window<T> &window, int64_t channel, int lanes) {
    vec acc = splat(KIND == SB_POOL_MAX ? window.outside : 0.0f);
    vec nan = {}; /* NaN wins over any maximum, as in PyTorch: kept apart, so that max() is one instruction */
    for (int64_t r = 0; r < window.rows; ++r) {
        const T *p = window.origin + r * window.step_y + channel;
        for (int64_t s = 0; s < window.cols; ++s, p += window.step_x) {
            const vec v = read(p, lanes);
            if constexpr (KIND == SB_POOL_MAX) {
                acc = max(v, acc);
                nan = v == v ? nan : v;
            } else {
                acc += v;
            }
        }
    }
    if constexpr (KIND == SB_POOL_MAX) return nan == nan ? acc : nan;
    else return acc / window.divisor;
}

/* Not inlined, and of a copy of the window: inside of the strip's loops GCC keeps the counters of these in memory. */
template <int KIND, class T>
__attribute__((noinline)) void pool_pixel(const Window<T> window, int64_t channels, T *dst) {
    int64_t c = 0;
    for (; c + W <= channels; c += W) store(dst + c, reduce<KIND>(window, c, W));
    if (c < channels) store(dst + c, reduce<KIND>(window, c, (int)(channels - c)), (int)(channels - c));
}

template <int KIND, class T>
void pool_strip(const sb_pool2d &pool, const Axis &ay, const Axis &ax, const sb_plane &x, const Region &region, const sb_plane &out) {
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const int64_t top = ay.origin(y);
        const Taps ty(top, ay.length(y), ay.dilation, x.h);
        for (int64_t ox = region.x0; ox < region.x1; ++ox) {
            const int64_t left = ax.origin(ox);
            const Taps tx(left, ax.length(ox), ax.dilation, x.w);
            Window<T> window;
            window.rows = ty.last - ty.first;
            window.cols = tx.last - tx.first;
            window.origin = pixel<T>(x, region.n, top + ty.first * ay.dilation, left + tx.first * ax.dilation);
            const bool whole = window.rows == ay.length(y) && window.cols == ax.length(ox);
            window.outside = whole ? -__builtin_inff() : pool.outside;
            window.step_y = ay.dilation * x.stride_y;
            window.step_x = ax.dilation * x.stride_x;
            window.divisor = divisor(pool, x, top, left, window.rows * window.cols);
            pool_pixel<KIND>(window, out.c, pixel<T>(out, region.n, y, ox));
        }
    }
}

template <class T>
void run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Axis ay = vertical(pool, x, out), ax = horizontal(pool, x, out);
    /* Few outputs with large windows are shared among the threads too. */
    const int64_t pixels = maximum(minimum(STRIP_TAPS / (ay.longest() * ax.longest()), STRIP_PIXELS), 1);
    const Regions regions(blocks, out, pixels, minimum(pixels, STRIP_COLUMNS));
    parallel_for(regions.count, threads, [&](int64_t i) {
        if (pool.kind == SB_POOL_MAX) pool_strip<SB_POOL_MAX, T>(pool, ay, ax, x, regions[i], out);
        else pool_strip<SB_POOL_AVG, T>(pool, ay, ax, x, regions[i], out);
    });
}

} // namespace

void pool2d_run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(pool, x, blocks, out, threads); });
}

} // namespace sb::SB_ISA
