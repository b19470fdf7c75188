/* pixel_shuffle, pixel_unshuffle and channel_shuffle of PyTorch. All move bits: a thread gathers the channels that it stores, 16
 * bytes of them, or one where planes do not lie at multiples of 16 bytes (`vector` 0). */
#include "maps.h"

namespace sb::SB_NAME {

struct Source {
    const sb_shuffle &shuffle;
    const sb_plane &in;
    Divisor by_factor, by_area; /* factor squared */
    int channels; /* of each of `factor` groups that are shuffled */

    SB_DEVICE Source(const sb_shuffle &shuffle_, const sb_plane &in_)
        : shuffle(shuffle_), in(in_), by_factor(shuffle.factor), by_area(shuffle.factor * shuffle.factor),
          channels(in.c / shuffle.factor) {}

    /* Where element (y, x, c) of the output of image n is. */
    template <class T>
    SB_DEVICE const T *at(int n, int y, int x, int c) const {
        const int factor = shuffle.factor;
        int down, along, place;
        switch (shuffle.kind) {
        case SB_PIXEL_SHUFFLE:
            y = by_factor.divide(y, down), x = by_factor.divide(x, along);
            return pixel<T>(in, n, y, x) + (int64_t)c * by_area.by + down * factor + along;
        case SB_PIXEL_UNSHUFFLE:
            c = by_area.divide(c, place), down = by_factor.divide(place, along);
            return pixel<T>(in, n, y * factor + down, x * factor + along) + c;
        default:
            c = by_factor.divide(c, place);
            return pixel<T>(in, n, y, x) + place * channels + c;
        }
    }
};

template <class T, int N>
SB_DEVICE void move(const sb_shuffle &shuffle, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    const Source source(shuffle, in);
    for_each<N, 1>(blocks, out, [&](int n, int y, int x, int c) {
        Vector<T, N> moved;
        SB_UNROLL
        for (int i = 0; i < N; ++i) moved[i] = *source.at<T>(n, y, x, c + i);
        T *to = pixel<T>(out, n, y, x) + c;
        return [moved, to] { store_vector(to, moved); };
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_shuffle shuffle, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::move<SB_T, 16 / sizeof(SB_T)>(shuffle, x, blocks, out);
    else SB_NAME::move<SB_T, 1>(shuffle, x, blocks, out);
}
