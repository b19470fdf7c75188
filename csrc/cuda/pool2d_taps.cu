/* Which tap of its window every maximum came from: the first largest, or the last NaN, as in PyTorch; -1 where a window lies outside of
 * the map. What pool2d_input_grad.cu reads. */
#include "pool2d.h"

namespace sb::SB_NAME {

template <int N>
SB_DEVICE void run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks &blocks, const sb_plane &taps) {
    const bool adaptive = pool.adaptive != 0;
    const Axis ay(pool.kernel_h, pool.stride_h, pool.pad_h, pool.dilation_h, x.h, taps.h, adaptive);
    const Axis ax(pool.kernel_w, pool.stride_w, pool.pad_w, pool.dilation_w, x.w, taps.w, adaptive);
    for_each<N, 1>(blocks, taps, [&](int n, int oy, int ox, int c) {
        const Taps ty(ay, oy), tx(ax, ox);
        Vector<int32_t, N> best;
        float most[N] = {};
        SB_UNROLL
        for (int i = 0; i < N; ++i) best[i] = -1;
        for (int r = ty.first; r < ty.last; ++r)
            for (int s = tx.first; s < tx.last; ++s) {
                const float *p = pixel<const float>(x, n, ty.origin + r * (int)ay.dilation.by, tx.origin + s * (int)ax.dilation.by) + c;
                const Vector<float, N> values = load_vector<N>(p);
                SB_UNROLL
                for (int i = 0; i < N; ++i) {
                    const float v = values[i];
                    if (best[i] >= 0 && !(v > most[i]) && v == v) continue;
                    best[i] = r * tx.length + s, most[i] = v;
                }
            }
        int32_t *to = pixel<int32_t>(taps, n, oy, ox) + c;
        return [best, to] { store_vector(to, best); };
    });
}

} // namespace sb::SB_NAME

/* `taps`: int32, as wide as floats. */
SB_ENTRY(sb_pool2d pool, sb_plane x, sb_blocks blocks, sb_plane taps, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<4>(pool, x, blocks, taps);
    else SB_NAME::run<1>(pool, x, blocks, taps);
}
