/* mask [n, rows, cols] of bytes -> index in (n, y, x) order and the count: csrc/cpu/blocks.cpp. One group does it all: every thread
 * counts a run of the mask, a scan over the threads says where its blocks go, and it lists them there. */
#include "device.h"

namespace sb::SB_NAME {

SB_DEVICE void list(const uint8_t *mask, int64_t n, int64_t rows, int64_t cols, int32_t *index, int32_t *count) {
    const int64_t all = n * rows * cols, run = ceil_div(all, thread_count());
    const int64_t first = minimum(thread_index() * run, all), last = minimum(first + run, all);
    int active = 0;
    for (int64_t i = first; i < last; ++i) active += mask[i] != 0;
    int upto = active; /* of this thread and those before it in its warp */
    for (int delta = 1; delta < WARP; delta *= 2) {
        const int before = shuffle_up(upto, delta);
        if (lane_index() >= delta) upto += before;
    }
    static_assert(SB_SHARED == SB_THREADS / WARP * sizeof(int), "a count for every warp");
    int *warps = (int *)shared_memory();
    if (lane_index() == WARP - 1) warps[warp_index()] = upto;
    barrier();
    int64_t place = upto - active;
    for (int warp = 0; warp < warp_index(); ++warp) place += warps[warp];
    if (thread_index() == thread_count() - 1) *count = (int32_t)(place + active);
    for (int64_t i = first; i < last; ++i) {
        if (!mask[i]) continue;
        int32_t *block = index + 3 * place++;
        block[0] = (int32_t)(i / (rows * cols));
        block[1] = (int32_t)(i / cols % rows);
        block[2] = (int32_t)(i % cols);
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(const uint8_t *mask, int32_t n, int32_t rows, int32_t cols, int32_t *index, int32_t *count) {
    sb::await_kernels_before_alone(); /* kernels of blocks read the list before they wait */
    sb::SB_NAME::list(mask, n, rows, cols, index, count);
    sb::memory_fence();
}
