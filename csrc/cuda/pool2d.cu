/* Maximum and average pooling; a thread reduces the window of 16 bytes of channels, or of one where they do not lie at multiples
 * of 16 bytes (`vector` 0). Sums and maxima go through the window in one fixed order, which is the CPU kernel's. */
#include "maps.h"

namespace sb::SB_NAME {

/* The windows of one axis: csrc/cpu/pool2d.cpp. */
struct Axis {
    int kernel, stride, pad, size; /* adaptive: kernel 0, and stride and pad are size / out and size % out */
    Divisor dilation, out;

    SB_DEVICE Axis(int kernel_, int stride_, int pad_, int dilation_, int size_, int out_, bool adaptive)
        : kernel(adaptive ? 0 : kernel_), stride(stride_), pad(pad_), size(size_), dilation(adaptive ? 1 : dilation_), out(out_) {
        if (adaptive) stride = out.divide(size, pad);
    }
    /* Adaptive: i * size / out, from there to the next window's rounded up. There are less than 2^16 of them. */
    SB_DEVICE int origin(int i) const { return kernel ? i * stride - pad : i * stride + out((uint32_t)i * pad); }
    SB_DEVICE int length(int i) const { return kernel ? kernel : (i + 1) * stride + out((uint32_t)(i + 1) * pad + out.by - 1) - origin(i); }
};

/* Indices [first, last) of a window's taps that lie in [0, size). */
struct Taps {
    int origin, length, first, last;

    SB_DEVICE Taps(const Axis &axis, int i) : origin(axis.origin(i)), length(axis.length(i)) {
        const auto steps_over = [&](int pixels) { return axis.dilation((uint32_t)pixels + axis.dilation.by - 1); };
        first = origin < 0 ? steps_over(-origin) : 0;
        last = origin < axis.size ? (int)minimum(length, steps_over(axis.size - origin)) : 0;
        last = (int)maximum(first, last);
    }
    SB_DEVICE int count() const { return last - first; }
};

SB_DEVICE float divisor(const sb_pool2d &pool, const sb_plane &x, int top, int left, int taps) {
    if (pool.divisor) return (float)pool.divisor;
    if (pool.count_include_pad && !pool.adaptive) {
        const int64_t bottom = minimum((int64_t)top + pool.kernel_h, (int64_t)x.h + pool.pad_h);
        const int64_t right = minimum((int64_t)left + pool.kernel_w, (int64_t)x.w + pool.pad_w);
        return (float)maximum((bottom - top) * (right - left), 1);
    }
    return (float)maximum(taps, 1);
}

/* What a window comes to, tap by tap. */
template <class T, int N>
struct Sum {
    static constexpr bool MAX = false;
    float sum[N];

    SB_DEVICE explicit Sum(float) { change([](float) { return 0.0f; }); }
    SB_DEVICE void take(const Words<T, N> &taps) {
        float values[N];
        read_floats<T, N>(taps, values);
        SB_UNROLL
        for (int i = 0; i < N; ++i) sum[i] += values[i];
    }
    SB_DEVICE Vector<T, N> result(float divisor) {
        change([=](float v) { return v / divisor; });
        return from_floats<T>(sum);
    }
    template <class F>
    SB_DEVICE void change(const F &f) {
        SB_UNROLL
        for (int i = 0; i < N; ++i) sum[i] = f(sum[i]);
    }
};

/* NaN wins over any, as in PyTorch. */
template <class T, int N>
struct Largest {
    static constexpr bool MAX = true;
    Words<T, N> most; /* of halves, two in a word are compared at once */

    SB_DEVICE explicit Largest(float least) {
        Vector<T, N> all;
        SB_UNROLL
        for (int i = 0; i < N; ++i) all[i] = from_float<T>(least);
        most = Words<T, N>::of(all);
    }
    SB_DEVICE void take(const Words<T, N> &taps) {
        SB_UNROLL
        for (int i = 0; i < most.COUNT; ++i) most.words[i] = (typename Words<T, N>::Word)larger(most.words[i], taps.words[i], T());
    }
    SB_DEVICE static uint32_t larger(uint32_t most, uint32_t v, float) {
        return float_of_bits(v) >= float_of_bits(most) || float_of_bits(v) != float_of_bits(v) ? v : most;
    }
    SB_DEVICE static uint32_t larger(uint32_t most, uint32_t v, half) { return larger_halves(most, v); }
    SB_DEVICE static uint32_t larger(uint32_t most, uint32_t v, bfloat16) { return larger_bfloat16s(most, v); }
    SB_DEVICE Vector<T, N> result(float) const { return most; }
};

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
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(pool, x, blocks, out);
    else SB_NAME::run<SB_T, 1>(pool, x, blocks, out);
}
