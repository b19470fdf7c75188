/* Resize, nearest and bilinear, as csrc/cpu/interpolate.cpp has it; a thread takes 16 bytes of channels, or one where planes do not
 * lie at multiples of 16 bytes (`vector` 0). Blends along the row first, then between the rows. */
#include "maps.h"

namespace sb::SB_NAME {

/* The two pixels along an axis between which an output pixel lies. */
struct Source {
    int64_t near, far;
    float far_weight;

    SB_DEVICE Source(const sb_interpolate &resize, float scale, int64_t place, int64_t size) {
        float position = (float)place * scale;
        if (resize.mode == SB_BILINEAR && !resize.align_corners) {
            position = scale * ((float)place + 0.5f) - 0.5f;
            position = position < 0.0f ? 0.0f : position;
        }
        near = minimum((int64_t)position, size - 1);
        far = minimum(near + 1, size - 1);
        const float weight = position - (float)near;
        far_weight = weight > 1.0f ? 1.0f : weight;
    }
};

SB_DEVICE float blend(float near, float far, float far_weight) { return fma(far_weight, far - near, near); }

template <class T, int N>
SB_DEVICE void run(const sb_interpolate &resize, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    for_each<N>(blocks, out, [&](int64_t n, int64_t oy, int64_t ox, int64_t c) {
        const Source y(resize, resize.scale_h, oy, in.h), x(resize, resize.scale_w, ox, in.w);
        Vector<T, N> result = load_vector<N>(pixel<T>(in, n, y.near, x.near) + c);
        if (resize.mode == SB_BILINEAR) {
            const Vector<T, N> right = load_vector<N>(pixel<T>(in, n, y.near, x.far) + c),
                               below = load_vector<N>(pixel<T>(in, n, y.far, x.near) + c),
                               across = load_vector<N>(pixel<T>(in, n, y.far, x.far) + c);
            for (int i = 0; i < N; ++i) {
                const float top = blend(to_float(result[i]), to_float(right[i]), x.far_weight);
                const float bottom = blend(to_float(below[i]), to_float(across[i]), x.far_weight);
                result[i] = from_float<T>(blend(top, bottom, y.far_weight));
            }
        }
        store_vector(pixel<T>(out, n, oy, ox) + c, result);
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_interpolate resize, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(resize, x, blocks, out);
    else SB_NAME::run<SB_T, 1>(resize, x, blocks, out);
}
