/* The policy network: three convolutions that bring each block down to one pixel, a linear part, and their gradients. One thread. */
#include <math.h>

#include "scratch.h"
#include "sparseblock.h"

namespace {

constexpr int KERNEL = 4, TAPS = KERNEL * KERNEL;

/* The convolutions from the pixels up, their maps and where their parameters lie. */
struct Layers {
    struct {
        sb_conv2d conv;
        sb_plane in, out;
        int64_t weight, bias; /* first of them among the parameters */
    } layer[SB_POLICY_LAYERS];
    int64_t value, summary; /* first weights of the linear parts */

    Layers(const sb_policy &policy, const float *pixels, float *maps) {
        int32_t side = policy.side, c = policy.channels;
        sb_plane below = plane(policy, side, c, (void *)pixels);
        int64_t parameter = 0;
        for (int i = 0; i < SB_POLICY_LAYERS; ++i) {
            const int32_t k = policy.widths[i];
            side /= 2;
            const sb_plane above = plane(policy, side, k, maps);
            maps += (int64_t)above.h * above.w * k;
            layer[i] = {{c, k, 1, KERNEL, KERNEL, 2, 2, 1, 1, 1, 1, 0, SB_PAD_CONSTANT, SB_DIRECT, nullptr},
                        below, above, parameter, parameter + (int64_t)k * c * TAPS};
            parameter = layer[i].bias + k;
            below = above;
            c = k;
        }
        value = parameter;
        summary = value + c;
    }

    static sb_plane plane(const sb_policy &policy, int32_t side, int32_t c, void *data) {
        const int32_t h = policy.rows * side, w = policy.cols * side;
        return {data, (int64_t)h * w * c, (int64_t)w * c, c, 1, 1, h, w, c, 0, SB_F32};
    }
};

void convolve(sb_conv2d conv, const float *weight, const float *bias, int activation, const sb_plane &x, const sb_plane &out) {
    float *packed = (float *)sb::scratch(sb::SCRATCH_POLICY, sizeof(float) * sb_conv2d_packed_size(&conv));
    sb_conv2d_pack(&conv, weight, packed);
    conv.packed_weight = packed;
    const sb_epilogue epilogue = {bias, nullptr, nullptr, nullptr, activation, SB_ADD, 0, 0};
    sb_conv2d_run(&conv, &epilogue, &x, nullptr, nullptr, &out, 1);
}

} // namespace

void sb_policy_logits_run(const sb_policy *policy, const float *parameters, const float *pixels, const float *summary, float *maps,
                          float *logits) {
    const Layers layers(*policy, pixels, maps);
    for (const auto &l : layers.layer) convolve(l.conv, parameters + l.weight, parameters + l.bias, SB_RELU, l.in, l.out);
    const sb_plane &top = layers.layer[SB_POLICY_LAYERS - 1].out;
    const int64_t blocks = (int64_t)policy->rows * policy->cols;
    const float *value = parameters + layers.value, *weight = parameters + layers.summary, bound = policy->bound;
    for (int64_t i = 0; i < blocks; ++i) {
        float sum = weight[policy->summaries];
        for (int64_t k = 0; k < top.c; ++k) sum += value[k] * ((const float *)top.data)[i * top.c + k];
        for (int64_t s = 0; s < policy->summaries; ++s) sum += weight[s] * summary[s * blocks + i];
        logits[i] = bound * tanhf(sum / bound);
    }
}

void sb_policy_logits_grad_run(const sb_policy *policy, const float *parameters, const float *pixels, const float *summary,
                               const float *maps, const float *logits, const float *grad_logits, float *grad_parameters) {
    const Layers layers(*policy, pixels, (float *)maps);
    const auto &l = layers.layer;
    const sb_plane &top = l[SB_POLICY_LAYERS - 1].out;
    const int64_t blocks = (int64_t)policy->rows * policy->cols;
    /* Gradients of a map and of the one below it, and of a layer's weights as the kernel writes them. */
    int64_t largest = 0, weights = 0;
    for (const auto &layer : l) {
        const int64_t size = (int64_t)layer.out.h * layer.out.w * layer.out.c;
        largest = size > largest ? size : largest;
        weights = layer.bias - layer.weight > weights ? layer.bias - layer.weight : weights;
    }
    float *grad = (float *)sb::scratch(sb::SCRATCH_POLICY_GRADIENTS, sizeof(float) * (2 * largest + weights));
    float *grad_below = grad + largest, *grad_weight = grad_below + largest;

    float *value = grad_parameters + layers.value, *of_summary = grad_parameters + layers.summary;
    for (int64_t i = 0; i < top.c + policy->summaries + 1; ++i) value[i] = 0;
    for (int64_t i = 0; i < blocks; ++i) {
        const float share = logits[i] / policy->bound, g = grad_logits[i] * (1 - share * share);
        for (int64_t k = 0; k < top.c; ++k) {
            value[k] += g * ((const float *)top.data)[i * top.c + k];
            grad[i * top.c + k] = g * parameters[layers.value + k];
        }
        for (int64_t s = 0; s < policy->summaries; ++s) of_summary[s] += g * summary[s * blocks + i];
        of_summary[policy->summaries] += g;
    }
    for (int i = SB_POLICY_LAYERS - 1; i >= 0; --i) {
        const int64_t k = l[i].conv.out_channels, c = l[i].conv.in_channels, size = (int64_t)l[i].out.h * l[i].out.w * k;
        for (int64_t j = 0; j < size; ++j)
            if (!(((const float *)l[i].out.data)[j] > 0)) grad[j] = 0;
        sb_plane above = l[i].out, below = l[i].in;
        above.data = grad;
        sb_conv2d_weight_grad_run(&l[i].conv, &l[i].in, &above, nullptr, grad_weight, grad_parameters + l[i].bias, 1);
        float *to = grad_parameters + l[i].weight; /* [k][c][taps] of [k][taps][c] */
        for (int64_t o = 0; o < k; ++o)
            for (int64_t t = 0; t < TAPS; ++t)
                for (int64_t n = 0; n < c; ++n) to[(o * c + n) * TAPS + t] = grad_weight[(o * TAPS + t) * c + n];
        if (!i) break;
        sb_conv2d transposed = l[i].conv;
        transposed.in_channels = (int32_t)k;
        transposed.out_channels = (int32_t)c;
        transposed.transposed = 1;
        below.data = grad_below;
        convolve(transposed, parameters + l[i].weight, nullptr, SB_IDENTITY, above, below);
        float *next = grad_below;
        grad_below = grad;
        grad = next;
    }
}
