/* A map with pixels around it: a constant, or its own, as the mode says. Moves bits, 16 bytes of channels, or one where planes
 * do not lie at multiples of 16 bytes (`vector` 0). */
#include "pad.h"

#include "maps.h"

namespace sb::SB_NAME {

template <class T, int N>
SB_DEVICE void move(const sb_pad &pad, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    Vector<T, N> constant;
    for (int i = 0; i < N; ++i) constant[i] = from_float<T>(pad.value);
    for_each<N, 2>(blocks, out, [&](int n, int y, int x, int c) {
        const int row = pad_source(y - pad.top, in.h, pad.mode), col = pad_source(x - pad.left, in.w, pad.mode);
        Vector<T, N> moved = constant;
        if (row >= 0 && col >= 0) moved = load_vector<N>(pixel<T>(in, n, row, col) + c);
        T *to = pixel<T>(out, n, y, x) + c;
        return [moved, to] { store_vector(to, moved); };
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_pad pad, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::move<SB_T, 16 / sizeof(SB_T)>(pad, x, blocks, out);
    else SB_NAME::move<SB_T, 1>(pad, x, blocks, out);
}
