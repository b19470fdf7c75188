/* Pixels from channels, channels from pixels, and channels in another order: pixel_shuffle, pixel_unshuffle and channel_shuffle
 * of PyTorch. All move bits; within a pixel each is a few runs of channels with a step between them. */
#include "kernels.h"
#include "parallel.h"
#include "regions.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 256, STRIP_COLUMNS = 256;

template <class T>
SB_INLINE void copy(T *dst, int64_t dst_step, const T *src, int64_t src_step, int64_t count) {
    for (int64_t i = 0; i < count; ++i) dst[i * dst_step] = src[i * src_step];
}

/* Calls f(out's pixel, n, y, x) for every pixel of the active blocks. */
template <class T, class F>
void for_pixels(const sb_blocks *blocks, const sb_plane &out, int threads, F f) {
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    parallel_for(regions.count, threads, [&](int64_t i) {
        const Region region = regions[i];
        for (int64_t y = region.y0; y < region.y1; ++y)
            for (int64_t x = region.x0; x < region.x1; ++x) f(pixel<T>(out, region.n, y, x), region.n, y, x);
    });
}

template <class T>
void shuffle_pixels(int64_t factor, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    for_pixels<T>(blocks, out, threads, [&](T *dst, int64_t n, int64_t row, int64_t col) {
        const T *src = pixel<T>(x, n, row / factor, col / factor) + row % factor * factor + col % factor;
        copy(dst, 1, src, factor * factor, out.c);
    });
}

template <class T>
void unshuffle_pixels(int64_t factor, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    for_pixels<T>(blocks, out, threads, [&](T *dst, int64_t n, int64_t row, int64_t col) {
        for (int64_t r = 0; r < factor; ++r)
            for (int64_t s = 0; s < factor; ++s)
                copy(dst + r * factor + s, factor * factor, pixel<T>(x, n, row * factor + r, col * factor + s), 1, x.c);
    });
}

template <class T>
void shuffle_channels(int64_t groups, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const int64_t size = x.c / groups;
    for_pixels<T>(blocks, out, threads, [&](T *dst, int64_t n, int64_t row, int64_t col) {
        const T *src = pixel<T>(x, n, row, col);
        for (int64_t group = 0; group < groups; ++group) copy(dst + group, groups, src + group * size, 1, size);
    });
}

} // namespace

void shuffle_run(const sb_shuffle &shuffle, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) {
        using T = decltype(zero);
        switch (shuffle.kind) {
        case SB_PIXEL_SHUFFLE:
            return shuffle_pixels<T>(shuffle.factor, x, blocks, out, threads);
        case SB_PIXEL_UNSHUFFLE:
            return unshuffle_pixels<T>(shuffle.factor, x, blocks, out, threads);
        default:
            return shuffle_channels<T>(shuffle.factor, x, blocks, out, threads);
        }
    });
}

} // namespace sb::SB_ISA
