/* activation((value + residual) * scale + shift), on vectors. */
#pragma once

#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

/* The parameters of N consecutive channels, `lanes` of them real. Absent pointers are neutral values. */
template <int N>
struct EpilogueParams {
    float bias[N], scale[N], shift[N], slope[N];
    bool affine;
    int activation, lanes;

    EpilogueParams(const sb_epilogue &e, int64_t channel, int lanes_) {
        lanes = lanes_;
        activation = e.activation;
        affine = e.scale || e.shift;
        for (int i = 0; i < N; ++i) {
            bool real = i < lanes_;
            bias[i] = real && e.bias ? e.bias[channel + i] : -0.0f; /* adds nothing, not even to -0 */
            scale[i] = real && e.scale ? e.scale[channel + i] : 1.0f;
            shift[i] = real && e.shift ? e.shift[channel + i] : 0.0f;
            slope[i] = real && e.slope ? e.slope[channel + i] : 0.0f;
        }
    }
};

/* Comparisons are written so that NaN stays NaN, as in PyTorch. */
SB_INLINE vec activate(vec v, int activation, vec slope) {
    switch (activation) {
    case SB_RELU:
        return max(vec{}, v);
    case SB_RELU6:
        return min(splat(6.0f), max(vec{}, v));
    case SB_PRELU:
        return v > 0.0f ? v : v * slope;
    default:
        return v;
    }
}

} // namespace sb::SB_ISA
