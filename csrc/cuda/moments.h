/* Sums over cells and over maps of cells, in double precision and one order (csrc/cpu/moments.h). */
#pragma once

#include "maps.h"

namespace sb {

constexpr int WARPS = SB_THREADS / WARP;

SB_DEVICE double add(double a, double b) { return a + b; }

/* The sum of value(y, x) over rows x cols for every lane, which stands for a channel; all warps receive it. They take places in
 * turn, and their sums are added in their order. The whole group calls it. `join` adds, or whatever else takes nothing to be 0. */
template <class F, class Join = decltype(&add)>
SB_DEVICE double group_sum(int64_t rows, int64_t cols, const F &value, const Join &join = add) {
    static_assert(sizeof(F) && SB_SHARED == SB_THREADS * sizeof(double), "a sum for every thread"); /* of kernels that call it */
    double *sums = (double *)shared_memory(), sum = 0.0;
    int64_t y = warp_index() / cols, x = warp_index() % cols;
    while (y < rows) {
        sum = join(sum, value(y, x));
        x += WARPS;
        if (x >= cols) {
            y += x / cols;
            x %= cols;
        }
    }
    barrier(); /* what was summed before has been read */
    sums[thread_index()] = sum;
    barrier();
    double total = 0.0;
    for (int warp = 0; warp < WARPS; ++warp) total = join(total, sums[warp * WARP + lane_index()]);
    return total;
}

/* The sum over the lanes of a warp, in all of them. */
template <class Join = decltype(&add)>
SB_DEVICE double lane_sum(double v, const Join &join = add) {
    for (int mask = WARP / 2; mask; mask /= 2) v = join(v, shuffle_xor(v, mask));
    return v;
}

/* Calls read(i) for pixels i of a small picture, several of them before what any returned: the threads of a group take them in turn. */
template <int AT_ONCE = 8, class F>
SB_DEVICE void for_each_pixel(int pixels, const F &read) {
    for (int first = thread_index(); first < pixels; first += AT_ONCE * thread_count())
        all_then_finish<0, AT_ONCE>([&](int k) {
            const int i = first + k * thread_count();
            const bool there = i < pixels;
            const auto finish = read(there ? i : first);
            return [finish, there] {
                if (there) finish();
            };
        });
}

/* The sum of what all threads of the group give, in all of them. The whole group calls it. */
template <class T>
SB_DEVICE double all_sum(T given) {
    static_assert(sizeof(T) && SB_SHARED >= WARPS * sizeof(double), "a sum for every warp"); /* of kernels that call it */
    double *sums = (double *)shared_memory();
    const double of_warp = lane_sum((double)given);
    barrier(); /* what was summed before has been read */
    if (lane_index() == 0) sums[warp_index()] = of_warp;
    barrier();
    double total = 0.0;
    for (int warp = 0; warp < WARPS; ++warp) total += sums[warp];
    return total;
}

/* Pixels of the cell in column or row i. */
SB_DEVICE int64_t cell_side(int64_t i, int64_t block, int64_t size) { return minimum(block, size - i * block); }
SB_DEVICE double cell_pixels(const sb_moments &moments, int64_t y, int64_t x) {
    return (double)(cell_side(y, moments.block_h, moments.height) * cell_side(x, moments.block_w, moments.width));
}

} // namespace sb
