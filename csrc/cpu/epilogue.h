/* activation((value + bias (+ or *) residual) * scale + shift), on vectors. */
#pragma once

#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

/* The parameters of N consecutive channels, `lanes` of them real. Absent pointers are neutral values. */
template <int N>
struct EpilogueParams {
    float bias[N], scale[N], shift[N], slope[N], low, high;
    bool affine, multiply;
    int activation, lanes;

    EpilogueParams() = default;
    EpilogueParams(const sb_epilogue &e, int64_t channel, int lanes_) {
        lanes = lanes_;
        activation = e.activation;
        low = e.low;
        high = e.high;
        affine = e.scale || e.shift;
        multiply = e.combine == SB_MULTIPLY;
        for (int i = 0; i < N; ++i) {
            bool real = i < lanes_;
            bias[i] = real && e.bias ? e.bias[channel + i] : -0.0f; /* adds nothing, not even to -0 */
            scale[i] = real && e.scale ? e.scale[channel + i] : 1.0f;
            shift[i] = real && e.shift ? e.shift[channel + i] : 0.0f;
            slope[i] = real && e.slope ? e.slope[channel + i] : 0.0f;
        }
    }
};

SB_INLINE vec combine(vec v, vec residual, bool multiply) { return multiply ? v * residual : v + residual; }

/* The activations up to SB_PRELU. Comparisons are written so that NaN stays NaN, as in PyTorch. */
SB_INLINE vec activate(vec v, int activation, vec slope, float low, float high) {
    switch (activation) {
    case SB_RELU:
        return max(vec{}, v);
    case SB_CLAMP:
        return min(splat(high), max(splat(low), v));
    case SB_PRELU:
        return v > 0.0f ? v : v * slope;
    default:
        return v;
    }
}

/* Whether an activation is one of the others, which are too long to stand in every kernel. */
SB_INLINE bool is_called(int activation) { return activation > SB_PRELU; }

/* `count` vectors of the same channels, in place. `slope`: of these channels, W floats. */
void activate_called(int activation, const float *slope, vec *values, int count);

/* Any activation of one vector. */
SB_INLINE vec activate_one(vec v, int activation, vec slope, float low, float high) {
    if (!is_called(activation)) return activate(v, activation, slope, low, high);
    activate_called(activation, (const float *)&slope, &v, 1);
    return v;
}

} // namespace sb::SB_ISA
