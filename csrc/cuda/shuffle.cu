/* pixel_shuffle, pixel_unshuffle and channel_shuffle of PyTorch. All move bits: a thread gathers the channels that it stores, 16
 * bytes of them, or one where planes do not lie at multiples of 16 bytes (`vector` 0). */
#include "maps.h"

namespace sb::SB_NAME {

/* Where element (y, x, c) of the output of image n is in the input. */
template <class T>
SB_DEVICE const T *source(const sb_shuffle &shuffle, const sb_plane &in, int64_t n, int64_t y, int64_t x, int64_t c) {
    const int64_t factor = shuffle.factor, area = factor * factor;
    switch (shuffle.kind) {
    case SB_PIXEL_SHUFFLE:
        return pixel<T>(in, n, y / factor, x / factor) + c * area + y % factor * factor + x % factor;
    case SB_PIXEL_UNSHUFFLE:
        return pixel<T>(in, n, y * factor + c % area / factor, x * factor + c % factor) + c / area;
    default:
        return pixel<T>(in, n, y, x) + c % factor * (in.c / factor) + c / factor;
    }
}

template <class T, int N>
SB_DEVICE void move(const sb_shuffle &shuffle, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    for_each<N>(blocks, out, [&](int64_t n, int64_t y, int64_t x, int64_t c) {
        Vector<T, N> moved;
        for (int i = 0; i < N; ++i) moved[i] = *source<T>(shuffle, in, n, y, x, c + i);
        store_vector(pixel<T>(out, n, y, x) + c, moved);
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_shuffle shuffle, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    if (vector) SB_NAME::move<SB_T, 16 / sizeof(SB_T)>(shuffle, x, blocks, out);
    else SB_NAME::move<SB_T, 1>(shuffle, x, blocks, out);
}
