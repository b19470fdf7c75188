/* The mean of a map from the means of its cells: csrc/cpu/global_avg_pool2d.cpp. A group takes WARP channels of an image: its lanes
 * are the channels, its warps take cells in turn. */
#include "moments.h"

namespace sb::SB_NAME {

template <class T>
SB_DEVICE void run(const sb_moments &moments, const sb_plane &cells, const sb_blocks &blocks, const sb_plane &out) {
    const Regions regions(blocks, out);
    const int64_t chunks = ceil_div(out.c, WARP);
    const double count = (double)moments.height * moments.width;
    for (int64_t i = group_index(); i < regions.count() * chunks; i += group_count()) {
        const Region region(regions, i / chunks);
        const int64_t c = i % chunks * WARP + lane_index();
        const bool valid = c < out.c;
        const double total = group_sum(cells.h, cells.w, [&](int64_t y, int64_t x) {
            return valid ? cell_pixels(moments, y, x) * pixel<float>(cells, region.n, y, x)[c] : 0.0;
        });
        if (valid && warp_index() == 0) pixel<T>(out, region.n, region.y0, region.x0)[c] = from_float<T>((float)(total / count));
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_moments moments, sb_plane x, sb_blocks blocks, sb_plane out) {
    using namespace sb;
    await_kernels_before();
    SB_NAME::run<SB_T>(moments, x, blocks, out);
}
