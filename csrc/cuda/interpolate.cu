/* Resize, nearest and bilinear, as csrc/cpu/interpolate.cpp has it; a thread takes 16 bytes of channels, or one where planes do not
 * lie at multiples of 16 bytes (`vector` 0). Blends along the row first, then between the rows. */
#include "interpolate.h"

namespace sb::SB_NAME {

SB_DEVICE float blend(float near, float far, float far_weight) { return fma(far_weight, far - near, near); }

template <class T, int N>
SB_DEVICE void run(const sb_interpolate &resize, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    const bool bilinear = resize.mode == SB_BILINEAR;
    for_each<N, 1>(blocks, out, [&](int n, int oy, int ox, int c) {
        const Source y(resize, resize.scale_h, oy, in.h), x(resize, resize.scale_w, ox, in.w);
        const T *near = pixel<T>(in, n, y.near, 0) + c, *far = pixel<T>(in, n, y.far, 0) + c;
        const int64_t left = x.near * in.stride_x, right = x.far * in.stride_x;
        const Words<T, N> first = load_words<N>(near + left);
        Words<T, N> beside = {}, below = {}, across = {};
        if (bilinear) beside = load_words<N>(near + right), below = load_words<N>(far + left), across = load_words<N>(far + right);
        T *to = pixel<T>(out, n, oy, ox) + c;
        return [first, beside, below, across, bilinear, to, along = x.far_weight, down = y.far_weight] {
            if (!bilinear) return store_vector<T, N>(to, first);
            const Vector<T, N> corners[4] = {first, beside, below, across};
            float values[N];
            SB_UNROLL
            for (int i = 0; i < N; ++i) {
                const float top = blend(to_float(corners[0][i]), to_float(corners[1][i]), along);
                const float bottom = blend(to_float(corners[2][i]), to_float(corners[3][i]), along);
                values[i] = blend(top, bottom, down);
            }
            store_vector(to, from_floats<T>(values));
        };
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_interpolate resize, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(resize, x, blocks, out);
    else SB_NAME::run<SB_T, 1>(resize, x, blocks, out);
}
