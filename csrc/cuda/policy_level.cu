/* The running mean of how much small pictures changed, by which policy_inputs.cu scales: one group. */
#include "policy_inputs.h"

SB_ENTRY(sb::PolicyInputs in, const double *level, double momentum, double *updated) {
    using namespace sb;
    await_kernels_before();
    double sum = 0.0;
    for (int c = 0; c < in.channels; ++c) {
        double of_channel = 0.0;
        for_each_pixel(in.pixels(), [&](int i) {
            const float d = in.difference(c, i);
            return [&of_channel, d] { of_channel += d; };
        });
        sum += of_channel / in.deviation[c];
    }
    const double of_frame = all_sum(sum) / in.pixels() / in.channels, before = *level;
    if (thread_index() == 0) *updated = before == before ? momentum * before + (1.0 - momentum) * of_frame : of_frame; /* NaN: no frame yet */
}
