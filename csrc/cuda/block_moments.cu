/* Mean, and sum of squared deviations from it, of every cell of a map: csrc/cpu/block_moments.cpp. A group takes WARP channels of a
 * cell: its lanes are the channels, its warps take pixels in turn. The second pass finds the cell in the cache. */
#include "moments.h"

namespace sb::SB_NAME {

template <class T>
SB_DEVICE void run(const sb_moments &moments, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    const Regions regions(blocks, out);
    const int64_t chunks = ceil_div(in.c, WARP), cells = regions.height() * regions.width();
    for (int64_t i = group_index(); i < regions.count() * cells * chunks; i += group_count()) {
        const Region region(regions, i / chunks / cells);
        const int64_t cell = i / chunks % cells, y = region.y0 + cell / regions.width(), x = region.x0 + cell % regions.width();
        if (y >= region.y1 || x >= region.x1) continue;
        const int64_t c = i % chunks * WARP + lane_index();
        const bool valid = c < in.c;
        const int64_t rows = cell_side(y, moments.block_h, in.h), cols = cell_side(x, moments.block_w, in.w);
        const T *first = pixel<T>(in, region.n, y * moments.block_h, x * moments.block_w) + c;
        const auto value = [&](int64_t row, int64_t col) {
            return valid ? (double)to_float(first[row * in.stride_y + col * in.stride_x]) : 0.0;
        };
        float *cell_out = pixel<float>(out, region.n, y, x) + c;
        const double mean = group_sum(rows, cols, value) / (double)(rows * cols);
        if (valid && warp_index() == 0) cell_out[0] = (float)mean;
        if (moments.order < 2) continue;
        const double deviations = group_sum(rows, cols, [&](int64_t row, int64_t col) {
            const double d = value(row, col) - mean;
            return d * d;
        });
        if (valid && warp_index() == 0) cell_out[in.c] = (float)deviations;
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_moments moments, sb_plane x, sb_blocks blocks, sb_plane out) {
    using namespace sb;
    await_kernels_before();
    SB_NAME::run<SB_T>(moments, x, blocks, out);
}
