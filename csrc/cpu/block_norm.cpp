/* The norm of every cell of a map, or of the difference of two maps.
 *
 *   out[n, y, x] = |v|, |v|_2 or max |v| of all channels of the pixels [y * block_h, (y + 1) * block_h) x [x * block_w, (x + 1) * block_w)
 *                  that lie in the map, v = x or x - y
 *
 * In double precision and one order, over the pixels of the cell alone. Vectors along the channels. */
#include <math.h>

#include "kernels.h"
#include "moments.h"
#include "parallel.h"

namespace sb::SB_ISA {
namespace {

/* What a total becomes with one more value, or with another total. NaN is larger than any. */
template <int NORM, class V>
SB_INLINE V join(V total, V more) {
    if constexpr (NORM == SB_NORM_MAX) return (more >= total) | (more != more) ? more : total;
    else return total + more;
}

template <int NORM>
SB_INLINE wide_vec join(wide_vec total, wide_vec more) { return {join<NORM>(total.low, more.low), join<NORM>(total.high, more.high)}; }

/* What a difference counts as. */
template <int NORM>
SB_INLINE doubles weight(doubles d) {
    if constexpr (NORM == SB_NORM_L2) return d * d;
    else return d < 0.0 ? -d : d;
}

template <int NORM, class T>
double norm_of(const T *x, const sb_plane &xs, const T *y, const sb_plane *ys, int64_t rows, int64_t cols) {
    wide_vec totals = {};
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t col = 0; col < cols; ++col) {
            const T *p = x + row * xs.stride_y + col * xs.stride_x, *q = y ? y + row * ys->stride_y + col * ys->stride_x : nullptr;
            for (int64_t c = 0; c < xs.c; c += W) {
                const int lanes = (int)minimum(W, xs.c - c);
                wide_vec d = widen(load_lanes(p + c, lanes));
                if (q) d = d - widen(load_lanes(q + c, lanes));
                totals = join<NORM>(totals, wide_vec{weight<NORM>(d.low), weight<NORM>(d.high)});
            }
        }
    double total = 0.0;
    for (int i = 0; i < W; ++i) total = join<NORM>(total, (double)totals[i]);
    return NORM == SB_NORM_L2 ? sqrt(total) : total;
}

template <int NORM, class T>
void run(const sb_block_norm &norm, const sb_plane &x, const sb_plane *y, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Regions regions(blocks, out, 1, 1);
    parallel_for(regions.count, threads, [&](int64_t i) {
        const Region r = regions[i];
        if (r.y0 >= r.y1 || r.x0 >= r.x1) return;
        const int64_t top = r.y0 * norm.block_h, left = r.x0 * norm.block_w;
        const T *second = y ? pixel<T>(*y, r.n, top, left) : nullptr;
        *pixel<float>(out, r.n, r.y0, r.x0) =
            (float)norm_of<NORM>(pixel<T>(x, r.n, top, left), x, second, y, cell_side(r.y0, norm.block_h, x.h),
                                 cell_side(r.x0, norm.block_w, x.w));
    });
}

} // namespace

void block_norm_run(const sb_block_norm &norm, const sb_plane &x, const sb_plane *y, const sb_blocks *blocks, const sb_plane &out,
                    int threads) {
    with_storage(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (norm.norm == SB_NORM_L1) run<SB_NORM_L1, T>(norm, x, y, blocks, out, threads);
        else if (norm.norm == SB_NORM_L2) run<SB_NORM_L2, T>(norm, x, y, blocks, out, threads);
        else run<SB_NORM_MAX, T>(norm, x, y, blocks, out, threads);
    });
}

} // namespace sb::SB_ISA
