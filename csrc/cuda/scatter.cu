/* The i-th active block of out = packed[i], clipped to the frame. Moves bits, 16 bytes of channels, or one where planes do not lie at
 * multiples of 16 bytes (`vector` 0). */
#include "maps.h"

namespace sb::SB_NAME {

template <class T, int N>
SB_DEVICE void move(const sb_plane &packed, const sb_blocks &blocks, const sb_plane &out) {
    for_each_of<N, 4>(*blocks.count, packed.h, packed.w, packed.c, [&](int i) {
        const int32_t *index = blocks.index + 3 * i;
        const int n = index[0], top = index[1] * blocks.block_h, left = index[2] * blocks.block_w;
        return [&packed, &out, i, n, top, left](int down, int along, int c) {
            const int y = top + down, x = left + along;
            const bool inside = y < out.h && x < out.w;
            const Vector<T, N> moved = load_vector<N>(pixel<T>(packed, i, down, along) + c);
            T *to = pixel<T>(out, n, y, x) + c;
            return [moved, to, inside] {
                if (inside) store_vector(to, moved);
            };
        };
    });
}

} // namespace sb::SB_NAME

/* `packed`: [capacity, block_h, block_w, c]. */
SB_ENTRY(sb_plane packed, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::move<SB_T, 16 / sizeof(SB_T)>(packed, blocks, out);
    else SB_NAME::move<SB_T, 1>(packed, blocks, out);
}
