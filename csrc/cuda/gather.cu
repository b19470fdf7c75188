/* packed[i] = the i-th active block of x with `halo` more pixels on every side, zeros outside of the frame. Moves bits, 16 bytes of
 * channels, or one where planes do not lie at multiples of 16 bytes (`vector` 0). */
#include "maps.h"

namespace sb::SB_NAME {

template <class T, int N>
SB_DEVICE void move(const sb_plane &in, int halo, const sb_blocks &blocks, const sb_plane &packed) {
    for_each_of<N, 4>(*blocks.count, packed.h, packed.w, packed.c, [&](int i) {
        const int32_t *index = blocks.index + 3 * i;
        const int n = index[0], top = index[1] * blocks.block_h - halo, left = index[2] * blocks.block_w - halo;
        return [&in, &packed, i, n, top, left](int down, int along, int c) {
            const int y = top + down, x = left + along;
            Vector<T, N> moved = {};
            if (y >= 0 && y < in.h && x >= 0 && x < in.w) moved = load_vector<N>(pixel<T>(in, n, y, x) + c);
            T *to = pixel<T>(packed, i, down, along) + c;
            return [moved, to] { store_vector(to, moved); };
        };
    });
}

} // namespace sb::SB_NAME

/* `packed`: [capacity, block_h + 2 halo, block_w + 2 halo, c]. */
SB_ENTRY(sb_plane x, int32_t halo, sb_blocks blocks, sb_plane packed, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::move<SB_T, 16 / sizeof(SB_T)>(x, halo, blocks, packed);
    else SB_NAME::move<SB_T, 1>(x, halo, blocks, packed);
}
