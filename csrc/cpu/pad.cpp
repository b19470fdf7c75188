/* A map with pixels around it: a constant, or its own, as the mode says. Moves bits; rows are copied whole where pixels are
 * contiguous. Reads the frame only, never the border. */
#include "pad.h"

#include <string.h>

#include "kernels.h"
#include "parallel.h"
#include "regions.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 512, STRIP_COLUMNS = 512;

template <class T>
void fill(T *dst, int64_t channels, float value) {
    for (int64_t c = 0; c < channels; c += W) store(dst + c, splat(value), (int)minimum(W, channels - c));
}

template <class T>
void strip(const sb_pad &pad, const sb_plane &x, const Region &region, const sb_plane &out) {
    const bool flat = x.stride_x == out.c && out.stride_x == out.c;
    /* Columns [first, last) are those of the map. */
    const int64_t first = minimum(maximum(region.x0, pad.left), region.x1);
    const int64_t last = maximum(minimum(region.x1, pad.left + (int64_t)x.w), first);
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const int64_t row = pad_source(y - pad.top, x.h, pad.mode);
        auto copy = [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t col = pad_source(i - pad.left, x.w, pad.mode);
                T *dst = pixel<T>(out, region.n, y, i);
                if (row < 0 || col < 0) fill(dst, out.c, pad.value);
                else memcpy(dst, pixel<T>(x, region.n, row, col), sizeof(T) * out.c);
            }
        };
        if (!flat || row < 0) {
            copy(region.x0, region.x1);
            continue;
        }
        copy(region.x0, first);
        memcpy(pixel<T>(out, region.n, y, first), pixel<T>(x, region.n, row, first - pad.left), sizeof(T) * (last - first) * out.c);
        copy(last, region.x1);
    }
}

template <class T>
void run(const sb_pad &pad, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    parallel_for(regions.count, threads, [&](int64_t i) { strip<T>(pad, x, regions[i], out); });
}

} // namespace

void pad_run(const sb_pad &pad, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(pad, x, blocks, out, threads); });
}

} // namespace sb::SB_ISA
