/* What the windows of a pooling read, and what they come to. */
#pragma once

#include "maps.h"

namespace sb {

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
    /* With what the lane at this distance has come to. */
    SB_DEVICE void join(int distance) {
        change([=](float v) { return v + shuffle_xor(v, distance); });
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
    SB_DEVICE void join(int distance) {
        SB_UNROLL
        for (int i = 0; i < most.COUNT; ++i)
            most.words[i] = (typename Words<T, N>::Word)larger(most.words[i], shuffle_xor((uint32_t)most.words[i], distance), T());
    }
    SB_DEVICE static uint32_t larger(uint32_t most, uint32_t v, float) {
        return float_of_bits(v) >= float_of_bits(most) || float_of_bits(v) != float_of_bits(v) ? v : most;
    }
    SB_DEVICE static uint32_t larger(uint32_t most, uint32_t v, half) { return larger_halves(most, v); }
    SB_DEVICE static uint32_t larger(uint32_t most, uint32_t v, bfloat16) { return larger_bfloat16s(most, v); }
    SB_DEVICE Vector<T, N> result(float) const { return most; }
};

} // namespace sb
