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

SB_DEVICE float activate(float v, const sb_epilogue &e, int64_t c) {
    switch (e.activation) {
    case SB_RELU:
        return at_least(0.0f, v);
    case SB_CLAMP:
        return at_most(e.high, at_least(e.low, v));
    case SB_PRELU:
        return v > 0.0f ? v : v * e.slope[c];
    case SB_ELU:
        return v > 0.0f ? v : e.slope[c] * expm1(v);
    case SB_SIGMOID:
        return sigmoid(v, 1.0f);
    case SB_TANH:
        return tanh(v);
    case SB_SILU:
        return sigmoid(v, v);
    case SB_GELU:
        return v * normal_distribution(v);
    case SB_GELU_TANH:
        return sigmoid(v * fma(v * v, 0.0713548163f, 1.5957691216f), v);
    case SB_MISH: {
        const float power = exp(at_most(20.0f, v)), n = power * (power + 2.0f);
        return v * (n / (n + 2.0f));
    }
    case SB_SOFTPLUS:
        return at_least(0.0f, v) + log1p(exp(v > 0.0f ? -v : v));
    case SB_HARDSIGMOID:
        return hard_sigmoid(v);
    case SB_HARDSWISH:
        return v * hard_sigmoid(v);
    default:
        return v;
    }
}

/* What is stored of channel c for a sum `v`; the residual counts where it is `combined`. */
SB_DEVICE float finish(float v, bool combined, float residual, const sb_epilogue &e, int64_t c) {
    if (e.bias) v += e.bias[c];
    if (combined) v = e.combine == SB_MULTIPLY ? v * residual : v + residual;
    if (e.scale || e.shift) v = fma(v, e.scale ? e.scale[c] : 1.0f, e.shift ? e.shift[c] : 0.0f);
    return activate(v, e, c);
}

} // namespace sb
