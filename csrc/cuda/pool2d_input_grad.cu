/* Gradient of a pooling with respect to its input: csrc/cpu/input_grad.cpp has the formula. A thread gathers, for 16 bytes of channels of
 * an input pixel, or one where planes do not lie at multiples of 16 bytes (`vector` 0), from all windows that have it, in one order.
 * `grad` is zero where no block is active. */
#include "pool2d.h"

namespace sb::SB_NAME {

/* The windows of an axis that may have pixel `i`: [first, last). */
struct Windows {
    int first, last;

    SB_DEVICE Windows(const Axis &axis, int i) {
        const int64_t out = axis.out.by, stride = axis.stride;
        if (axis.kernel) {
            const int64_t from = (int64_t)i + axis.pad, reach = (int64_t)(axis.kernel - 1) * axis.dilation.by;
            first = (int)(from > reach ? ceil_div(from - reach, stride) : 0), last = (int)minimum(from / stride + 1, out);
        } else first = (int)(i * out / axis.size), last = (int)ceil_div((i + 1) * out, axis.size);
    }
};

/* Which tap of a window pixel `i` is; -1: none. */
SB_DEVICE int tap_of(const Axis &axis, const Taps &taps, int i) {
    int rest;
    const int tap = axis.dilation.divide((uint32_t)(i - taps.origin), rest);
    return rest == 0 && tap < taps.last ? tap : -1;
}

template <int N, bool MAX>
SB_DEVICE void run(const sb_pool2d &pool, const sb_plane &taps, const sb_plane &grad, const sb_blocks &blocks, const sb_plane &out) {
    const bool adaptive = pool.adaptive != 0;
    const Axis ay(pool.kernel_h, pool.stride_h, pool.pad_h, pool.dilation_h, out.h, grad.h, adaptive);
    const Axis ax(pool.kernel_w, pool.stride_w, pool.pad_w, pool.dilation_w, out.w, grad.w, adaptive);
    for_each<N, 1>(blocks, out, [&](int n, int y, int x, int c) {
        const Windows down(ay, y), along(ax, x);
        float sum[N] = {};
        for (int oy = down.first; oy < down.last; ++oy) {
            const Taps ty(ay, oy);
            const int r = tap_of(ay, ty, y);
            if (r < 0) continue;
            for (int ox = along.first; ox < along.last; ++ox) {
                const Taps tx(ax, ox);
                const int s = tap_of(ax, tx, x);
                if (s < 0) continue;
                const Vector<float, N> g = load_vector<N>(pixel<const float>(grad, n, oy, ox) + c);
                if constexpr (MAX) {
                    const Vector<int32_t, N> best = load_vector<N>(pixel<const int32_t>(taps, n, oy, ox) + c);
                    SB_UNROLL
                    for (int i = 0; i < N; ++i)
                        if (best[i] == r * tx.length + s) sum[i] += g[i];
                } else {
                    const float weight = 1.0f / divisor(pool, out, ty.origin, tx.origin, ty.count() * tx.count());
                    SB_UNROLL
                    for (int i = 0; i < N; ++i) sum[i] = fma(g[i], weight, sum[i]);
                }
            }
        }
        float *to = pixel<float>(out, n, y, x) + c;
        const Vector<float, N> result = from_floats<float>(sum);
        return [result, to] { store_vector(to, result); };
    });
}

template <int N>
SB_DEVICE void run(const sb_pool2d &pool, const sb_plane &taps, const sb_plane &grad, const sb_blocks &blocks, const sb_plane &out) {
    if (pool.kind == SB_POOL_MAX) run<N, true>(pool, taps, grad, blocks, out);
    else run<N, false>(pool, taps, grad, blocks, out);
}

} // namespace sb::SB_NAME

/* `taps`: of maxima, from pool2d_taps.cu; blocks over `out`. */
SB_ENTRY(sb_pool2d pool, sb_plane taps, sb_plane grad, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<4>(pool, taps, grad, blocks, out);
    else SB_NAME::run<1>(pool, taps, grad, blocks, out);
}
