/* Mean, and sum of squared deviations from it, of every cell of a map: what statistics of the whole map are made of.
 *
 *   out[n, y, x, c]     = mean of the pixels [y * block_h, (y + 1) * block_h) x [x * block_w, (x + 1) * block_w) that lie in the map
 *   out[n, y, x, C + c] = sum over them of (value - mean)^2, with order 2
 *
 * Sums are in double precision, in one order, over the pixels of the cell alone: two passes over it (the mean first: a sum of
 * squares would cancel where the mean is large), while it is in the cache. Vectors along the channels. */
#include "kernels.h"
#include "moments.h"
#include "parallel.h"

namespace sb::SB_ISA {
namespace {

template <class T>
struct Cell {
    const T *pixels;
    int64_t rows, cols, stride_y, stride_x;
};

/* Sum of value - center, or of its square, of one vector of channels. */
template <bool SQUARED, class T>
SB_INLINE wide_vec sum(const Cell<T> &cell, int64_t channel, int lanes, wide_vec center) {
    /* Pixels of a row go to four sums in turn, so that additions do not wait for each other. */
    wide_vec a = {}, b = {}, c = {}, d = {};
    for (int64_t y = 0; y < cell.rows; ++y) {
        const T *p = cell.pixels + y * cell.stride_y + channel;
        auto add = [&](wide_vec &to, const T *from) {
            const wide_vec v = widen(load_lanes(from, lanes)) - center;
            to += SQUARED ? v * v : v;
        };
        int64_t x = 0;
        for (; x + 4 <= cell.cols; x += 4, p += 4 * cell.stride_x) {
            add(a, p);
            add(b, p + cell.stride_x);
            add(c, p + 2 * cell.stride_x);
            add(d, p + 3 * cell.stride_x);
        }
        if (x < cell.cols) add(a, p);
        if (x + 1 < cell.cols) add(b, p + cell.stride_x);
        if (x + 2 < cell.cols) add(c, p + 2 * cell.stride_x);
    }
    return (a + b) + (c + d);
}

template <class T>
SB_INLINE void moments_of(const Cell<T> &cell, int64_t channel, int lanes, int order, float *out, int64_t channels) {
    const double count = (double)(cell.rows * cell.cols);
    const wide_vec mean = sum<false>(cell, channel, lanes, wide_vec{}) / count;
    store(out + channel, narrow(mean), lanes);
    if (order > 1) store(out + channels + channel, narrow(sum<true>(cell, channel, lanes, mean)), lanes);
}

template <class T>
void run(const sb_moments &moments, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Regions regions(blocks, out, 1, 1);
    parallel_for(regions.count, threads, [&](int64_t i) {
        const Region r = regions[i];
        if (r.y0 >= r.y1 || r.x0 >= r.x1) return;
        const Cell<T> cell = {pixel<T>(x, r.n, r.y0 * moments.block_h, r.x0 * moments.block_w),
                              cell_side(r.y0, moments.block_h, x.h), cell_side(r.x0, moments.block_w, x.w), x.stride_y, x.stride_x};
        float *dst = pixel<float>(out, r.n, r.y0, r.x0);
        int64_t c = 0;
        for (; c + W <= x.c; c += W) moments_of(cell, c, W, moments.order, dst, x.c);
        if (c < x.c) moments_of(cell, c, (int)(x.c - c), moments.order, dst, x.c);
    });
}

} // namespace

void block_moments_run(const sb_moments &moments, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(x.dtype, [&](auto zero) { run<decltype(zero)>(moments, x, blocks, out, threads); });
}

} // namespace sb::SB_ISA
