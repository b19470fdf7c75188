/* The linear end of a policy network (csrc/cpu/policy_logits.cpp): a warp takes a block. */
#include "moments.h"

/* map [blocks, k], summary [s, blocks], weight [k + s + 1]. */
SB_ENTRY(const float *map, const float *summary, const float *weight, float bound, float *logits, int32_t blocks, int32_t k, int32_t s) {
    using namespace sb;
    await_kernels_before();
    for (int64_t i = group_index() * WARPS + warp_index(); i < blocks; i += group_count() * WARPS) {
        double sum = 0.0;
        for (int j = lane_index(); j < k + s; j += WARP) sum += weight[j] * (j < k ? map[i * k + j] : summary[(int64_t)(j - k) * blocks + i]);
        const float linear = (float)lane_sum(sum) + weight[k + s];
        if (lane_index() == 0) logits[i] = bound * sb::tanh(linear / bound);
    }
}
