/* Maximum and average pooling of large windows: `lanes` of a warp, a power of two, share the window of 16 bytes of channels, or of
 * one (`vector` 0), and the other lanes take the channels beside them. Of a window each takes every lanes-th tap, and what they come
 * to is joined two by two: an order that follows from the window alone. */
#include "pool2d.h"

namespace sb::SB_NAME {

template <class T, int N, class Reduction>
SB_DEVICE void reduce(const sb_pool2d &pool, const sb_plane &x, const sb_blocks &blocks, const sb_plane &out, int lanes) {
    constexpr int AT_ONCE = 8; /* taps of a lane */
    const bool adaptive = pool.adaptive != 0;
    const Axis ay(pool.kernel_h, pool.stride_h, pool.pad_h, pool.dilation_h, x.h, out.h, adaptive);
    const Axis ax(pool.kernel_w, pool.stride_w, pool.pad_w, pool.dilation_w, x.w, out.w, adaptive);
    const int64_t down = (int)ay.dilation.by * x.stride_y, along = (int)ax.dilation.by * x.stride_x;
    const int apart = WARP / lanes, share = lane_index() / apart; /* lanes of a window, so that adjacent ones read adjacent channels */
    const Regions regions(blocks, out);
    const int64_t height = regions.height(), chunks = ceil_div(out.c, apart * N), in_row = regions.width() * chunks;
    const int64_t first = (group_index() * thread_count() + thread_index()) / WARP, warps = group_count() * thread_count() / WARP;
    for (int64_t i = first; i < regions.count() * height * in_row; i += warps) {
        const int64_t row = i / in_row, in = i - row * in_row, column = in / chunks, map = row / height;
        const Region region(regions, map);
        const int64_t oy = region.y0 + row - map * height, ox = region.x0 + column;
        if (oy >= region.y1 || ox >= region.x1) continue;
        const Taps ty(ay, (int)oy), tx(ax, (int)ox);
        const int64_t c = ((in - column * chunks) * apart + lane_index() % apart) * N;
        const int columns = tx.count(), taps = ty.count() * columns, end = c < out.c ? taps : 0;
        const bool whole = ty.count() == ty.length && columns == tx.length;
        Reduction reduction(whole ? -infinity() : pool.outside);
        if (taps) {
            const Divisor by_columns(columns);
            int s, further;
            const int r = by_columns.divide((uint32_t)share, s), rows = by_columns.divide((uint32_t)lanes, further);
            const T *p = pixel<T>(x, region.n, ty.origin + ty.first * (int)ay.dilation.by, tx.origin + tx.first * (int)ax.dilation.by);
            p += c + r * down + s * along;
            const int64_t step = rows * down + further * along, back = down - columns * along;
            SB_NO_UNROLL
            for (int tap = share; tap < end; tap += AT_ONCE * lanes) {
                Words<T, N> values[AT_ONCE];
                SB_UNROLL
                for (int k = 0; k < AT_ONCE; ++k) {
                    if (tap + k * lanes < end) values[k] = load_words<N>(p);
                    p += step, s += further;
                    if (s >= columns) p += back, s -= columns;
                }
                SB_UNROLL
                for (int k = 0; k < AT_ONCE; ++k) {
                    if (tap + k * lanes >= end) break;
                    reduction.take(values[k]);
                }
            }
        }
        for (int distance = apart; distance < WARP; distance *= 2) reduction.join(distance);
        const float by = Reduction::MAX ? 1.0f : divisor(pool, x, ty.origin, tx.origin, taps);
        if (share == 0 && c < out.c) store_vector(pixel<T>(out, region.n, oy, ox) + c, reduction.result(by));
    }
}

template <class T, int N>
SB_DEVICE void run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks &blocks, const sb_plane &out, int lanes) {
    if (pool.kind == SB_POOL_MAX) reduce<T, N, Largest<T, N>>(pool, x, blocks, out, lanes);
    else reduce<T, N, Sum<T, N>>(pool, x, blocks, out, lanes);
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_pool2d pool, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector, int32_t lanes) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(pool, x, blocks, out, lanes);
    else SB_NAME::run<SB_T, 1>(pool, x, blocks, out, lanes);
}
