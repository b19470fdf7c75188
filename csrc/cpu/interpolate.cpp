/* Resize: nearest and bilinear, with PyTorch's source positions (torch.nn.functional.interpolate), computed from the output
 * pixel's place in the whole frame, so that blocks meet without a seam.
 *
 *   nearest:  out[y, x] = in[min(floor(y * scale_h), h - 1), ...]
 *   bilinear: s = align_corners ? y * scale_h : max(scale_h * (y + 0.5) - 0.5, 0);  i = min(floor(s), h - 1);  a = s - i
 *             out[y] = in[i] + a * (in[min(i + 1, h - 1)] - in[i]), along the row first, then between the rows;
 *             next to an infinity that is NaN, where PyTorch, which weighs both, has the infinity
 *
 * Planes NHWC, vectors along the channels. Reads the frame only, never the border. */
#include <string.h>

#include "interpolate.h"
#include "kernels.h"
#include "parallel.h"
#include "regions.h"
#include "vec.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 256, STRIP_COLUMNS = 256;

/* A vector of channels of the four pixels of the input that an output lies between. */
struct Corners {
    vec top, top_step, bottom, bottom_step;

    Corners(vec top_near, vec top_far, vec bottom_near, vec bottom_far)
        : top(top_near), top_step(top_far - top_near), bottom(bottom_near), bottom_step(bottom_far - bottom_near) {}
    vec at(float weight_y, float weight_x) const {
        const vec above = fma(splat(weight_x), top_step, top), below = fma(splat(weight_x), bottom_step, bottom);
        return fma(splat(weight_y), below - above, above);
    }
};

/* Outputs from s to `end`, `step` elements apart, which lie between the same four pixels; those are read once. */
template <class T>
void bilinear_pixels(const T *const (&corner)[4], float weight_y, const Source *s, const Source *end, T *dst, int64_t step, int64_t channels) {
    int64_t c = 0;
    for (; c + 2 * W <= channels; c += 2 * W) { /* of halves whole lines are stored */
        auto corners = [&](int64_t c) { return Corners(load(corner[0] + c), load(corner[1] + c), load(corner[2] + c), load(corner[3] + c)); };
        const Corners a = corners(c), b = corners(c + W);
        T *to = dst + c;
        for (const Source *p = s; p < end; ++p, to += step) store(to, a.at(weight_y, p->far_weight), b.at(weight_y, p->far_weight));
    }
    for (; c < channels; c += W) {
        const int lanes = (int)minimum(W, channels - c);
        auto values = [&](const T *from) { return lanes == W ? load(from + c) : load(from + c, lanes); };
        const Corners a(values(corner[0]), values(corner[1]), values(corner[2]), values(corner[3]));
        T *to = dst + c;
        for (const Source *p = s; p < end; ++p, to += step) {
            const vec v = a.at(weight_y, p->far_weight);
            if (lanes == W) store(to, v);
            else store(to, v, lanes);
        }
    }
}

template <class T>
void resize_strip(const sb_interpolate &resize, const sb_plane &x, const Region &region, const sb_plane &out) {
    Source columns[STRIP_COLUMNS];
    const Source *const end = columns + maximum(region.x1 - region.x0, 0);
    for (int64_t ox = region.x0; ox < region.x1; ++ox) columns[ox - region.x0] = source(resize, resize.scale_w, ox, x.w);
    for (int64_t oy = region.y0; oy < region.y1; ++oy) {
        const Source y = source(resize, resize.scale_h, oy, x.h);
        T *dst = pixel<T>(out, region.n, oy, region.x0);
        for (const Source *s = columns, *next; s < end; dst += (next - s) * out.stride_x, s = next) {
            next = s + 1;
            if (resize.mode == SB_NEAREST) {
                memcpy(dst, pixel<T>(x, region.n, y.near, s->near), sizeof(T) * out.c);
            } else {
                while (next < end && next->near == s->near) ++next;
                const T *const corner[4] = {pixel<T>(x, region.n, y.near, s->near), pixel<T>(x, region.n, y.near, s->far),
                                            pixel<T>(x, region.n, y.far, s->near), pixel<T>(x, region.n, y.far, s->far)};
                bilinear_pixels(corner, y.far_weight, s, next, dst, out.stride_x, out.c);
            }
        }
    }
}

template <class T>
void run(const sb_interpolate &resize, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    parallel_for(regions.count, threads, [&](int64_t i) { resize_strip<T>(resize, x, regions[i], out); });
}

} // namespace

void interpolate_run(const sb_interpolate &resize, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(resize, x, blocks, out, threads); });
}

} // namespace sb::SB_ISA
