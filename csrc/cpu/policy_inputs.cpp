/* What a policy network reads: pictures, the output before and a few numbers a block, in one pass. One thread. */
#include <math.h>

#include "kernels.h"
#include "math.h"
#include "scratch.h"

namespace sb::SB_ISA {
namespace {

float log_scaled(float x) { return 0.5f * logf(x + 0.1f); }

/* Pixel i of channel j. */
float standard(const sb_policy_inputs &in, const float *picture, int64_t j, int64_t i) {
    return (picture[j * in.rows * in.side * in.cols * in.side + i] - in.mean[j]) / in.deviation[j];
}

/* centred[k] of the output's features at one sample; returns its uncertainty. */
float centre(const sb_policy_inputs &in, const sb_plane &features, const float *from, float *centred) {
    const int64_t k = features.c;
    for (int64_t i = 0; i < k; ++i) centred[i] = from[i * features.stride_c];
    if (!in.logarithms) {
        for (int64_t i = 0; i < k; ++i) centred[i] -= 0.5f;
        return 0;
    }
    vec entropy = {};
    for (int64_t i = 0; i < k; i += W) {
        const int lanes = (int)minimum(W, k - i);
        const vec logarithm = load(centred + i, lanes), p = exp(logarithm); /* past the end log p is 0, which adds nothing */
        entropy -= p * logarithm;
        store(centred + i, p - 0.5f, lanes);
    }
    float sum = 0;
    for (int j = 0; j < W; ++j) sum += entropy[j];
    return sum / logf((float)k);
}

} // namespace

void policy_inputs(const sb_policy_inputs &in, const sb_plane &features, float *pixels, float *summary, float *level) {
    const int64_t side = in.side, h = in.rows * side, w = in.cols * side, c = in.channels, k = features.c, area = h * w;
    const int64_t blocks = (int64_t)in.rows * in.cols, depth = 2 * c + 1 + k + 1;
    const int64_t samples = features.h / in.rows, step = side / samples; /* pixels of a sample along both axes */
    float *change = (float *)scratch(SCRATCH_POLICY, sizeof(float) * (area + k + 2 * blocks));
    float *centred = change + area, *changed = centred + k, *uncertain = changed + blocks; /* the last two are sums over a block */
    for (int64_t i = 0; i < 2 * blocks; ++i) changed[i] = 0;

    double total = 0;
    for (int64_t i = 0; i < area; ++i) {
        float sum = 0;
        for (int64_t j = 0; j < c; ++j) sum += fabsf(standard(in, in.frame, j, i) - standard(in, in.executed, j, i));
        change[i] = sum / (float)c;
        total += change[i];
    }
    const float mean = (float)(total / (double)area);
    *level = *level != *level ? mean : in.momentum * *level + (1 - in.momentum) * mean; /* NaN: there is none yet */
    const float scale = 1 / (*level + 1e-3f);

    for (int64_t sy = 0; sy < features.h; ++sy) {
        for (int64_t sx = 0; sx < features.w; ++sx) {
            const int64_t block = sy / samples * in.cols + sx / samples;
            const float active = in.active[block] ? 0.5f : -0.5f;
            uncertain[block] += centre(in, features, (const float *)features.data + sy * features.stride_y + sx * features.stride_x, centred);
            for (int64_t y = sy * step; y < (sy + 1) * step; ++y) {
                for (int64_t x = sx * step; x < (sx + 1) * step; ++x) {
                    const int64_t place = y * w + x;
                    const float by = change[place] * scale;
                    changed[block] += by;
                    float *to = pixels + place * depth;
                    for (int64_t j = 0; j < c; ++j) *to++ = standard(in, in.frame, j, place);
                    for (int64_t j = 0; j < c; ++j) *to++ = standard(in, in.executed, j, place);
                    *to++ = log_scaled(by);
                    for (int64_t j = 0; j < k; ++j) *to++ = centred[j];
                    *to = active;
                }
            }
        }
    }
    for (int64_t i = 0; i < blocks; ++i) {
        summary[i] = in.active[i] ? 0.5f : -0.5f;
        summary[blocks + i] = log_scaled(changed[i] / (float)(side * side));
        summary[2 * blocks + i] = log1pf((float)in.age[i]) / 2 - 0.5f;
        if (in.logarithms) summary[3 * blocks + i] = log_scaled(10 * uncertain[i] / (float)(samples * samples));
    }
}

} // namespace sb::SB_ISA
