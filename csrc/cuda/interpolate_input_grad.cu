/* Gradient of a resize with respect to its input: csrc/cpu/input_grad.cpp has the formula. A thread gathers, for 16 bytes of channels of
 * an input pixel, or one where planes do not lie at multiples of 16 bytes (`vector` 0), from all pixels that were made of it, in one
 * order. `grad` is zero where no block is active. */
#include "interpolate.h"

namespace sb::SB_NAME {

/* The output pixels of an axis that input pixel `i` of `size` counts for: [first, last). They follow each other, as do their sources. */
struct Places {
    const sb_interpolate &resize;
    float scale;
    int i, size, first, last;

    SB_DEVICE Places(const sb_interpolate &resize_, float scale_, int i_, int size_, int out) : resize(resize_), scale(scale_), i(i_), size(size_) {
        first = search(out, [&](const Source &s) { return (resize.mode == SB_BILINEAR ? s.far : s.near) >= i; });
        last = search(out, [&](const Source &s) { return s.near > i; });
    }
    /* The first place of `out` whose source is such; all behind it are. */
    template <class F>
    SB_DEVICE int search(int out, const F &such) const {
        int low = 0, high = out;
        while (low < high) {
            const int middle = low + (high - low) / 2;
            if (such(Source(resize, scale, middle, size))) high = middle;
            else low = middle + 1;
        }
        return low;
    }
    /* How much pixel i counts in an output pixel. */
    SB_DEVICE float weight(int place) const {
        const Source s(resize, scale, place, size);
        if (resize.mode != SB_BILINEAR) return 1.0f;
        return (s.near == i ? 1.0f - s.far_weight : 0.0f) + (s.far == i ? s.far_weight : 0.0f);
    }
};

template <int N>
SB_DEVICE void run(const sb_interpolate &resize, const sb_plane &grad, const sb_blocks &blocks, const sb_plane &out) {
    for_each<N, 1>(blocks, out, [&](int n, int y, int x, int c) {
        const Places down(resize, resize.scale_h, y, out.h, grad.h), along(resize, resize.scale_w, x, out.w, grad.w);
        float sum[N] = {};
        for (int oy = down.first; oy < down.last; ++oy) {
            const float of_row = down.weight(oy);
            for (int ox = along.first; ox < along.last; ++ox) {
                const float weight = of_row * along.weight(ox);
                const Vector<float, N> g = load_vector<N>(pixel<const float>(grad, n, oy, ox) + c);
                SB_UNROLL
                for (int i = 0; i < N; ++i) sum[i] = fma(g[i], weight, sum[i]);
            }
        }
        float *to = pixel<float>(out, n, y, x) + c;
        const Vector<float, N> result = from_floats<float>(sum);
        return [result, to] { store_vector(to, result); };
    });
}

} // namespace sb::SB_NAME

/* Blocks over `out`. */
SB_ENTRY(sb_interpolate resize, sb_plane grad, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<4>(resize, grad, blocks, out);
    else SB_NAME::run<1>(resize, grad, blocks, out);
}
