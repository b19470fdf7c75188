/* The mean of a map from the means of its cells: out[n, 0, 0, c] = sum over the cells of pixels * mean / (height * width). */
#include "kernels.h"
#include "moments.h"
#include "parallel.h"

namespace sb::SB_ISA {
namespace {

template <class T>
void run(const sb_moments &moments, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Regions regions(blocks, out, 1, 1);
    const double count = (double)moments.height * moments.width;
    parallel_for(regions.count, threads, [&](int64_t i) {
        const Region r = regions[i];
        if (r.y0 >= r.y1 || r.x0 >= r.x1) return;
        T *dst = pixel<T>(out, r.n, r.y0, r.x0);
        for (int64_t c = 0; c < out.c; c += W) {
            const int lanes = (int)minimum(W, out.c - c);
            store(dst + c, narrow(map_sum(moments, x, r.n, c, lanes) / count), lanes);
        }
    });
}

} // namespace

void global_avg_pool2d_run(const sb_moments &moments, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(moments, x, blocks, out, threads); });
}

} // namespace sb::SB_ISA
