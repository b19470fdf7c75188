/* Scale and shift of every channel of every image for a group normalization, from the moments of its map: csrc/cpu/group_norm.cpp
 * has the formulas. A group takes a group of channels of an image: its warps take cells in turn, its lanes the channels of a cell. */
#include "moments.h"

namespace sb::SB_NAME {

SB_DEVICE void run(const sb_group_norm &norm, const sb_epilogue &e, const sb_plane &cells, const sb_blocks &blocks, float *statistics) {
    if (blocks.count && !*blocks.count) return;
    const sb_moments &moments = norm.moments;
    const int64_t channels = cells.c / 2, width = channels / norm.groups;
    const double count = (double)moments.height * moments.width * (double)width;
    for (int64_t i = group_index(); i < (int64_t)cells.n * norm.groups; i += group_count()) {
        const int64_t n = i / norm.groups, first = i % norm.groups * width;
        const double mean = lane_sum(group_sum(cells.h, cells.w, [&](int64_t y, int64_t x) {
            const float *means = pixel<float>(cells, n, y, x) + first;
            double sum = 0.0;
            for (int64_t c = lane_index(); c < width; c += WARP) sum += means[c];
            return sum * cell_pixels(moments, y, x);
        })) / count;
        const double variance = lane_sum(group_sum(cells.h, cells.w, [&](int64_t y, int64_t x) {
            const float *means = pixel<float>(cells, n, y, x) + first, *deviations = means + channels;
            const double pixels = cell_pixels(moments, y, x);
            double sum = 0.0;
            for (int64_t c = lane_index(); c < width; c += WARP) {
                const double d = means[c] - mean;
                sum += deviations[c] + d * d * pixels;
            }
            return sum;
        })) / count;
        const double inverse = 1.0 / sqrt(variance + norm.eps);
        float *scale = statistics + 2 * n * channels, *shift = scale + channels;
        for (int64_t c = first + thread_index(); c < first + width; c += thread_count()) {
            scale[c] = (float)(e.scale ? inverse * e.scale[c] : inverse);
            /* Of the scale as it was rounded, so that a large mean cancels. */
            shift[c] = (float)((e.shift ? e.shift[c] : 0.0) - mean * scale[c]);
        }
    }
}

} // namespace sb::SB_NAME

/* statistics [n][2][c]: scales, then shifts. */
SB_ENTRY(sb_group_norm norm, sb_epilogue epilogue, sb_plane moments, sb_blocks blocks, float *statistics) {
    sb::await_kernels_before();
    sb::SB_NAME::run(norm, epilogue, moments, blocks, statistics);
}
