/* Maximum and average pooling of small windows; a thread reduces the window of 16 bytes of channels, or of one where they do not
 * lie at multiples of 16 bytes (`vector` 0). Sums and maxima go through the window in one fixed order, which is the CPU kernel's. */
#include "pool2d.h"

namespace sb::SB_NAME {

template <class T, int N, class Reduction>
SB_DEVICE void reduce(const sb_pool2d &pool, const sb_plane &x, const sb_blocks &blocks, const sb_plane &out) {
    constexpr int AT_ONCE = Reduction::MAX ? 3 : 6; /* taps of a window's row, as registers allow */
    const bool adaptive = pool.adaptive != 0;
    const Axis ay(pool.kernel_h, pool.stride_h, pool.pad_h, pool.dilation_h, x.h, out.h, adaptive);
    const Axis ax(pool.kernel_w, pool.stride_w, pool.pad_w, pool.dilation_w, x.w, out.w, adaptive);
    const int64_t along = (int)ax.dilation.by * x.stride_x;
    for_each<N, 1>(blocks, out, [&](int n, int oy, int ox, int c) {
        const Taps ty(ay, oy), tx(ax, ox);
        const bool whole = ty.count() == ty.length && tx.count() == tx.length;
        Reduction reduction(whole ? -infinity() : pool.outside);
        const int left = tx.origin + tx.first * (int)ax.dilation.by;
        SB_NO_UNROLL
        for (int r = ty.first; r < ty.last; ++r) {
            const T *p = pixel<T>(x, n, ty.origin + r * (int)ay.dilation.by, left) + c;
            SB_NO_UNROLL
            for (int s = tx.first; s < tx.last; s += AT_ONCE) {
                Words<T, N> taps[AT_ONCE];
                SB_UNROLL
                for (int k = 0; k < AT_ONCE; ++k, p += along)
                    if (s + k < tx.last) taps[k] = load_words<N>(p);
                SB_UNROLL
                for (int k = 0; k < AT_ONCE; ++k) {
                    if (s + k >= tx.last) break;
                    reduction.take(taps[k]);
                }
            }
        }
        const float by = Reduction::MAX ? 1.0f : divisor(pool, x, ty.origin, tx.origin, ty.count() * tx.count());
        const Vector<T, N> result = reduction.result(by);
        T *to = pixel<T>(out, n, oy, ox) + c;
        return [result, to] { store_vector(to, result); };
    });
}

template <class T, int N>
SB_DEVICE void run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks &blocks, const sb_plane &out) {
    if (pool.kind == SB_POOL_MAX) reduce<T, N, Largest<T, N>>(pool, x, blocks, out);
    else reduce<T, N, Sum<T, N>>(pool, x, blocks, out);
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_pool2d pool, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(pool, x, blocks, out);
    else SB_NAME::run<SB_T, 1>(pool, x, blocks, out);
}
