/* The activations that are longer than a few instructions; epilogue.h has the others. Errors: sparseblock/testing/activations.py. */
#include "epilogue.h"
#include "math.h"

namespace sb::SB_ISA {
namespace {

SB_INLINE vec hard_sigmoid(vec v) { return min(splat(6.0f), max(vec{}, v + 3.0f)) * (1.0f / 6.0f); }

/* v * P(X <= v), X normal. */
SB_INLINE vec gelu(vec v) {
    const vec tail = normal_tail(absolute(v));
    return v * (v > 0.0f ? 1.0f - tail : tail);
}

/* v (1 + tanh(u)) / 2 = v / (1 + e^-2u) for u = sqrt(2 / pi) (v + 0.044715 v^3). */
SB_INLINE vec gelu_tanh(vec v) {
    return sigmoid(v * fma(v * v, splat(0.0713548163f), splat(1.5957691216f)), v);
}

/* v tanh(log(1 + e^v)) = v n / (n + 2) for n = e^v (e^v + 2); v itself from 20 on, where e^v might overflow. */
SB_INLINE vec mish(vec v) {
    const vec e = exp(min(splat(20.0f), v)), n = e * (e + 2.0f);
    return v * (n / (n + 2.0f));
}

SB_INLINE vec softplus(vec v) { return max(vec{}, v) + log1p(exp(-absolute(v))); }

SB_INLINE vec elu(vec v, vec slope) { return v > 0.0f ? v : slope * expm1(min(vec{}, v)); }

template <class Function>
SB_INLINE void each(vec *values, int count, Function function) {
    for (int i = 0; i < count; ++i) values[i] = function(values[i]);
}

} // namespace

void activate_called(int activation, const float *slope, vec *values, int count) {
    switch (activation) {
    case SB_ELU: {
        const vec factor = load(slope);
        return each(values, count, [=](vec v) { return elu(v, factor); });
    }
    case SB_SIGMOID:
        return each(values, count, [](vec v) { return sigmoid(v, splat(1.0f)); });
    case SB_TANH:
        return each(values, count, [](vec v) { return tanh(v); });
    case SB_SILU:
        return each(values, count, [](vec v) { return sigmoid(v, v); });
    case SB_GELU:
        return each(values, count, [](vec v) { return gelu(v); });
    case SB_GELU_TANH:
        return each(values, count, [](vec v) { return gelu_tanh(v); });
    case SB_MISH:
        return each(values, count, [](vec v) { return mish(v); });
    case SB_SOFTPLUS:
        return each(values, count, [](vec v) { return softplus(v); });
    case SB_HARDSIGMOID:
        return each(values, count, [](vec v) { return hard_sigmoid(v); });
    case SB_HARDSWISH:
        return each(values, count, [](vec v) { return v * hard_sigmoid(v); });
    }
}

} // namespace sb::SB_ISA
