/* What a policy network reads: csrc/cpu/policy_inputs.cpp. A group takes a block, its threads the numbers of its pixels in turn. */
#include "policy_inputs.h"

namespace sb::SB_NAME {

SB_DEVICE float log_scaled(float v) { return 0.5f * log(v + 0.1f); }

SB_DEVICE void run(const PolicyInputs &in, const sb_plane &features, const double *level, float *pixels, float *summary) {
    const int side = in.side, c = in.channels, k = features.c, depth = 2 * c + 1 + k + 1, area = side * side;
    const int blocks = in.rows * in.cols, samples = features.h / in.rows, step = side / samples; /* pixels along a sample */
    const float scale = 1.0f / ((float)*level + 1e-3f);
    const Divisor by_depth(depth), by_side(side), by_step(step), by_features(k), by_samples(samples);
    for (int block = (int)group_index(); block < blocks; block += (int)group_count()) {
        const int row = block / in.cols, col = block % in.cols, width = in.cols * side;
        const float active = in.active[block] ? 0.5f : -0.5f;
        const auto feature = [&](int y, int x, int i) {
            return pixel<float>(features, 0, row * samples + y, col * samples + x)[i * features.stride_c];
        };
        const auto place = [&](int i, int &y, int &x) { /* of pixel i of the block */
            y = by_side.divide(i, x);
            return (row * side + y) * width + col * side + x;
        };
        for_each_pixel<4>(area * depth, [&](int item) {
            int i, y, x;
            const int at = place(by_depth.divide(item, i), y, x);
            float v = active;
            if (i < c) v = in.standard(in.frame, i, at);
            else if (i < 2 * c) v = in.standard(in.executed, i - c, at);
            else if (i == 2 * c) v = in.change(at);
            else if (i < depth - 1) v = feature(by_step(y), by_step(x), i - 2 * c - 1);
            return [=] {
                float *to = pixels + (int64_t)at * depth + i;
                if (i == 2 * c) *to = log_scaled(v * scale);
                else if (i > 2 * c && i < depth - 1) *to = (in.logarithms ? exp(v) : v) - 0.5f;
                else *to = v;
            };
        });
        double changed = 0.0, uncertain = 0.0;
        for (int i = thread_index(); i < area; i += thread_count()) {
            int y, x;
            changed += in.change(place(i, y, x)) * scale;
        }
        for_each_pixel<4>(in.logarithms ? samples * samples * k : 0, [&](int item) {
            int i, x;
            const int y = by_samples.divide(by_features.divide(item, i), x);
            const float logarithm = feature(y, x, i);
            return [&uncertain, logarithm] { uncertain -= exp(logarithm) * logarithm; };
        });
        changed = all_sum(changed) / area;
        uncertain = all_sum(uncertain) / (samples * samples);
        if (thread_index() > 0) continue;
        summary[block] = active;
        summary[blocks + block] = log_scaled((float)changed);
        summary[2 * blocks + block] = log1p((float)in.age[block]) / 2 - 0.5f;
        if (in.logarithms) summary[3 * blocks + block] = log_scaled(10.0f * (float)uncertain / log((float)k));
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(sb::PolicyInputs in, sb_plane features, const double *level, float *pixels, float *summary) {
    sb::await_kernels_before();
    sb::SB_NAME::run(in, features, level, pixels, summary);
}
