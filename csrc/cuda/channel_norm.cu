/* softmax, division by the L2 norm and layer normalization over the channels of a pixel: csrc/cpu/channel_norm.cpp has the formulas. A
 * warp takes a pixel, its lanes channels in turn; sums are in double precision and one order. in may be out: a lane writes what it
 * alone reads once all have summed. */
#include "epilogue.h"
#include "moments.h"

namespace sb::SB_NAME {

/* The sum of f(v) over the channels of a pixel, in all lanes. */
template <class T, class F>
SB_DEVICE double channel_sum(const T *values, int64_t channels, const F &f) {
    double sum = 0.0;
    for (int64_t c = lane_index(); c < channels; c += WARP) sum += f(to_float(values[c]));
    return lane_sum(sum);
}

/* The largest value; of NaN any. */
template <class T>
SB_DEVICE float largest(const T *values, int64_t channels) {
    const auto larger = [](double a, double b) { return b > a ? b : a; };
    double most = -infinity();
    for (int64_t c = lane_index(); c < channels; c += WARP) most = larger(most, to_float(values[c]));
    return (float)lane_sum(most, larger);
}

/* Stores what f makes of every channel, finished. */
template <class T, class F>
SB_DEVICE void write(const sb_epilogue &epilogue, const T *from, T *to, int64_t channels, const F &f) {
    for (int64_t c = lane_index(); c < channels; c += WARP)
        to[c] = from_float<T>(finish((float)f(to_float(from[c])), false, 0.0f, epilogue, c));
}

template <class T>
SB_DEVICE void run(const sb_channel_norm &norm, const sb_epilogue &epilogue, const sb_plane &in, const sb_blocks &blocks,
                   const sb_plane &out) {
    const Regions regions(blocks, out);
    const int64_t width = regions.width(), pixels = regions.height() * width, all = regions.count() * pixels;
    for (int64_t i = group_index() * WARPS + warp_index(); i < all; i += group_count() * WARPS) {
        const Region region(regions, i / pixels);
        const int64_t y = region.y0 + i % pixels / width, x = region.x0 + i % width;
        if (y >= region.y1 || x >= region.x1) continue;
        const T *from = pixel<T>(in, region.n, y, x);
        T *to = pixel<T>(out, region.n, y, x);
        if (norm.kind == SB_SOFTMAX) {
            const float most = largest(from, out.c);
            const double total = channel_sum(from, out.c, [&](float v) { return (double)exp(v - most); });
            write(epilogue, from, to, out.c, [&](float v) { return exp(v - most) / total; });
        } else if (norm.kind == SB_UNIT_LENGTH) {
            const double length = sqrt(channel_sum(from, out.c, [](double v) { return v * v; }));
            const double factor = 1.0 / (length < norm.eps ? norm.eps : length);
            write(epilogue, from, to, out.c, [&](double v) { return v * factor; });
        } else {
            const double mean = channel_sum(from, out.c, [](double v) { return v; }) / out.c;
            const double squares = channel_sum(from, out.c, [&](double v) { return (v - mean) * (v - mean); });
            const double factor = 1.0 / sqrt(squares / out.c + norm.eps);
            write(epilogue, from, to, out.c, [&](double v) { return (v - mean) * factor; });
        }
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_channel_norm norm, sb_epilogue epilogue, sb_plane x, sb_blocks blocks, sb_plane out) {
    using namespace sb;
    await_kernels_before();
    SB_NAME::run<SB_T>(norm, epilogue, x, blocks, out);
}
