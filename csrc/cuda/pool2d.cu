/* Maximum and average pooling; a thread reduces the window of 16 bytes of channels, or of one where they do not lie at multiples
 * of 16 bytes (`vector` 0). Sums and maxima go through the window in one fixed order, which is the CPU kernel's. */
#include "maps.h"

namespace sb::SB_NAME {

/* The windows of one axis: csrc/cpu/pool2d.cpp. */
struct Axis {
    int64_t kernel, stride, pad, dilation, size, out;
    bool adaptive;

    SB_DEVICE int64_t origin(int64_t i) const { return adaptive ? i * size / out : i * stride - pad; }
    SB_DEVICE int64_t length(int64_t i) const { return adaptive ? ceil_div((i + 1) * size, out) - i * size / out : kernel; }
};

/* Indices [first, last) of a window's taps that lie in [0, size). */
struct Taps {
    int64_t first, last;
    SB_DEVICE Taps(int64_t origin, int64_t kernel, int64_t dilation, int64_t size) {
        first = origin < 0 ? ceil_div(-origin, dilation) : 0;
        last = origin < size ? minimum(kernel, ceil_div(size - origin, dilation)) : 0;
        last = maximum(first, last);
    }
    SB_DEVICE int64_t count() const { return last - first; }
};

SB_DEVICE float divisor(const sb_pool2d &pool, const sb_plane &x, int64_t top, int64_t left, int64_t taps) {
    if (pool.divisor) return (float)pool.divisor;
    if (pool.count_include_pad && !pool.adaptive)
        taps = (minimum(top + pool.kernel_h, x.h + pool.pad_h) - top) * (minimum(left + pool.kernel_w, x.w + pool.pad_w) - left);
    return (float)maximum(taps, 1);
}

template <class T, int N>
SB_DEVICE void reduce(const sb_pool2d &pool, const sb_plane &x, const sb_blocks &blocks, const sb_plane &out) {
    const bool adaptive = pool.adaptive != 0, is_max = pool.kind == SB_POOL_MAX;
    const Axis ay = {pool.kernel_h, pool.stride_h, pool.pad_h, adaptive ? 1 : pool.dilation_h, x.h, out.h, adaptive};
    const Axis ax = {pool.kernel_w, pool.stride_w, pool.pad_w, adaptive ? 1 : pool.dilation_w, x.w, out.w, adaptive};
    for_each<N>(blocks, out, [&](int64_t n, int64_t y, int64_t ox, int64_t c) {
        const int64_t top = ay.origin(y), left = ax.origin(ox);
        const Taps ty(top, ay.length(y), ay.dilation, x.h), tx(left, ax.length(ox), ax.dilation, x.w);
        const bool whole = ty.count() == ay.length(y) && tx.count() == ax.length(ox);
        float sum[N];
        for (int i = 0; i < N; ++i) sum[i] = !is_max ? 0.0f : whole ? -infinity() : pool.outside;
        for (int64_t r = ty.first; r < ty.last; ++r) {
            const T *p = pixel<T>(x, n, top + r * ay.dilation, left + tx.first * ax.dilation) + c;
            for (int64_t s = tx.first; s < tx.last; ++s, p += ax.dilation * x.stride_x) {
                const Vector<T, N> taps = load_vector<N>(p);
                for (int i = 0; i < N; ++i) {
                    const float v = to_float(taps[i]);
                    /* NaN wins over any maximum, as in PyTorch. */
                    if (!is_max) sum[i] += v;
                    else if (v >= sum[i] || v != v) sum[i] = v;
                }
            }
        }
        const float by = is_max ? 1.0f : divisor(pool, x, top, left, ty.count() * tx.count());
        Vector<T, N> result;
        for (int i = 0; i < N; ++i) result[i] = from_float<T>(is_max ? sum[i] : sum[i] / by);
        store_vector(pixel<T>(out, n, y, ox) + c, result);
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_pool2d pool, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    if (vector) SB_NAME::reduce<SB_T, 16 / sizeof(SB_T)>(pool, x, blocks, out);
    else SB_NAME::reduce<SB_T, 1>(pool, x, blocks, out);
}
