/* What both kernels of policy_inputs read: csrc/cpu/policy_inputs.cpp. */
#pragma once

#include "moments.h"

namespace sb {

/* Small pictures and a few numbers a block, as in sb_policy_inputs; statistics are in double precision, as they are kept. */
struct PolicyInputs {
    const float *frame, *executed;
    const double *mean, *deviation;
    const uint8_t *active;
    const int64_t *age;
    int32_t channels, rows, cols, side, logarithms;

    SB_DEVICE int pixels() const { return rows * side * cols * side; }
    SB_DEVICE float standard(const float *picture, int c, int i) const {
        return (picture[(int64_t)c * pixels() + i] - (float)mean[c]) / (float)deviation[c];
    }
    /* |frame - executed| in channel c of pixel i, before they are standardised. */
    SB_DEVICE float difference(int c, int i) const {
        const int64_t at = (int64_t)c * pixels() + i;
        const float d = frame[at] - executed[at];
        return d < 0.0f ? -d : d;
    }
    /* The mean over the channels, standardised. */
    SB_DEVICE float change(int i) const {
        float sum = 0.0f;
        for (int c = 0; c < channels; ++c) sum += difference(c, i) / (float)deviation[c];
        return sum / channels;
    }
};

} // namespace sb
