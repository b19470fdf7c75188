/* The norm of every cell of a map, or of the difference of two maps: csrc/cpu/block_norm.cpp. A group takes a cell: its warps take
 * pixels in turn, its lanes the channels of a pixel. */
#include "moments.h"

namespace sb::SB_NAME {

/* NaN is larger than any. */
SB_DEVICE double larger(double a, double b) { return b >= a || b != b ? b : a; }

template <class T>
SB_DEVICE void run(const sb_block_norm &norm, const sb_plane &x, const sb_plane &y, bool differ, const sb_blocks &blocks,
                   const sb_plane &out) {
    const Regions regions(blocks, out);
    const int64_t cells = regions.height() * regions.width();
    for (int64_t i = group_index(); i < regions.count() * cells; i += group_count()) {
        const Region region(regions, i / cells);
        const int64_t row = region.y0 + i % cells / regions.width(), col = region.x0 + i % cells % regions.width();
        if (row >= region.y1 || col >= region.x1) continue;
        const int64_t top = row * norm.block_h, left = col * norm.block_w;
        const auto join = [&](double a, double b) { return norm.norm == SB_NORM_MAX ? larger(a, b) : a + b; };
        const auto value = [&](int64_t down, int64_t along) {
            const T *p = pixel<T>(x, region.n, top + down, left + along), *q = pixel<T>(y, region.n, top + down, left + along);
            double total = 0.0;
            for (int64_t c = lane_index(); c < x.c; c += WARP) {
                const double d = differ ? (double)to_float(p[c]) - to_float(q[c]) : to_float(p[c]);
                total = join(total, norm.norm == SB_NORM_L2 ? d * d : d < 0.0 ? -d : d);
            }
            return total;
        };
        const int64_t rows = cell_side(row, norm.block_h, x.h), cols = cell_side(col, norm.block_w, x.w);
        const double total = lane_sum(group_sum(rows, cols, value, join), join);
        if (thread_index() == 0)
            *pixel<float>(out, region.n, row, col) = (float)(norm.norm == SB_NORM_L2 ? sqrt(total) : total);
    }
}

} // namespace sb::SB_NAME

/* `differ`: whether there is a y; else its plane is not read. */
SB_ENTRY(sb_block_norm norm, sb_plane x, sb_plane y, int32_t differ, sb_blocks blocks, sb_plane out) {
    using namespace sb;
    await_kernels_before();
    SB_NAME::run<SB_T>(norm, x, y, differ, blocks, out);
}
