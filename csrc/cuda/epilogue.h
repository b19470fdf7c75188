/* activation((value + bias (+ or *) residual) * scale + shift): csrc/cpu/epilogue.h, with the formulas of csrc/cpu/activation.cpp. */
#pragma once

#include "device.h"

namespace sb {

/* NaN stays NaN, as in PyTorch. */
SB_DEVICE float at_least(float low, float v) { return low > v ? low : v; }
SB_DEVICE float at_most(float high, float v) { return high < v ? high : v; }

/* factor / (1 + e^-v), with an exponential that cannot overflow. */
SB_DEVICE float sigmoid(float v, float factor) {
    const float e = exp(v > 0.0f ? -v : v);
    return (v > 0.0f ? factor : factor * e) / (1.0f + e);
}
SB_DEVICE float hard_sigmoid(float v) { return at_most(6.0f, at_least(0.0f, v + 3.0f)) * (1.0f / 6.0f); }

/* v[i] = f(v[i], i) */
template <int N, class F>
SB_DEVICE void change(float (&v)[N], const F &f) {
    SB_UNROLL
    for (int i = 0; i < N; ++i) v[i] = f(v[i], i);
}

/* N of a channel's parameters from c on; `otherwise` where there are none. Of more than one, `p` lies at a multiple of 16 bytes. */
template <int N>
SB_DEVICE Vector<float, N> parameters(const float *p, int c, float otherwise) {
    constexpr int AT_ONCE = N % 4 ? 1 : 4;
    Vector<float, N> values;
    SB_UNROLL
    for (int k = 0; k < N; ++k) values[k] = otherwise;
    if (p)
        SB_UNROLL
        for (int k = 0; k < N; k += AT_ONCE) {
            const Vector<float, AT_ONCE> some = load_vector<AT_ONCE>(p + c + k);
            SB_UNROLL
            for (int i = 0; i < AT_ONCE; ++i) values[k + i] = some[i];
        }
    return values;
}

/* The activation of N channels from c on: which one is asked once for all. */
template <int N>
SB_DEVICE void activate(float (&values)[N], const sb_epilogue &e, int64_t c) {
    switch (e.activation) {
    case SB_RELU:
        return change(values, [](float v, int) { return at_least(0.0f, v); });
    case SB_CLAMP:
        return change(values, [&](float v, int) { return at_most(e.high, at_least(e.low, v)); });
    case SB_PRELU:
        return change(values, [&](float v, int i) { return v > 0.0f ? v : v * e.slope[c + i]; });
    case SB_ELU:
        return change(values, [&](float v, int i) { return v > 0.0f ? v : e.slope[c + i] * expm1(v); });
    case SB_SIGMOID:
        return change(values, [](float v, int) { return sigmoid(v, 1.0f); });
    case SB_TANH:
        return change(values, [](float v, int) { return tanh(v); });
    case SB_SILU:
        return change(values, [](float v, int) { return sigmoid(v, v); });
    case SB_GELU:
        return change(values, [](float v, int) { return v * normal_distribution(v); });
    case SB_GELU_TANH:
        return change(values, [](float v, int) { return sigmoid(v * fma(v * v, 0.0713548163f, 1.5957691216f), v); });
    case SB_MISH:
        return change(values, [](float v, int) {
            const float power = exp(at_most(20.0f, v)), n = power * (power + 2.0f);
            return v * (n / (n + 2.0f));
        });
    case SB_SOFTPLUS:
        return change(values, [](float v, int) { return at_least(0.0f, v) + log1p(exp(v > 0.0f ? -v : v)); });
    case SB_HARDSIGMOID:
        return change(values, [](float v, int) { return hard_sigmoid(v); });
    case SB_HARDSWISH:
        return change(values, [](float v, int) { return v * hard_sigmoid(v); });
    }
}

/* What is stored of N channels from c on for their sums; the residuals count where they are `combined`. */
template <int N>
SB_DEVICE void finish(float (&values)[N], bool combined, const float (&residuals)[N], const sb_epilogue &e, int64_t c) {
    if (e.bias) {
        const Vector<float, N> bias = parameters<N>(e.bias, (int)c, 0.0f);
        change(values, [&](float v, int i) { return v + bias[i]; });
    }
    if (combined && e.combine == SB_MULTIPLY) change(values, [&](float v, int i) { return v * residuals[i]; });
    else if (combined) change(values, [&](float v, int i) { return v + residuals[i]; });
    if (e.scale || e.shift) {
        const Vector<float, N> scale = parameters<N>(e.scale, (int)c, 1.0f), shift = parameters<N>(e.shift, (int)c, 0.0f);
        change(values, [&](float v, int i) { return fma(v, scale[i], shift[i]); });
    }
    activate(values, e, c);
}

/* The same of one channel. */
SB_DEVICE float activate(float v, const sb_epilogue &e, int64_t c) {
    float values[1] = {v};
    activate(values, e, c);
    return values[0];
}
SB_DEVICE float finish(float v, bool combined, float residual, const sb_epilogue &e, int64_t c) {
    float values[1] = {v};
    const float residuals[1] = {residual};
    finish(values, combined, residuals, e, c);
    return values[0];
}

} // namespace sb
