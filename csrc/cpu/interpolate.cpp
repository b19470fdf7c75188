/* Resize: nearest and bilinear, with PyTorch's source positions (torch.nn.functional.interpolate), computed from the output
 * pixel's place in the whole frame, so that blocks meet without a seam.
 *
 *   nearest:  out[y, x] = in[min(floor(y * scale_h), h - 1), ...]
 *   bilinear: s = align_corners ? y * scale_h : max(scale_h * (y + 0.5) - 0.5, 0);  i = min(floor(s), h - 1);  a = s - i
 *             out[y] = (1 - a) * in[i] + a * in[min(i + 1, h - 1)], along the row first, then between the rows
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

SB_INLINE vec blend(vec near, vec far, vec far_weight) { return fma(far_weight, far - near, near); }

template <class T>
void bilinear_pixel(const T *const (&corner)[4], float weight_y, float weight_x, T *dst, int64_t channels) {
    const vec wy = splat(weight_y), wx = splat(weight_x);
    int64_t c = 0;
    for (; c + W <= channels; c += W) {
        const vec top = blend(load(corner[0] + c), load(corner[1] + c), wx);
        const vec bottom = blend(load(corner[2] + c), load(corner[3] + c), wx);
        store(dst + c, blend(top, bottom, wy));
    }
    if (c < channels) {
        const int tail = (int)(channels - c);
        const vec top = blend(load(corner[0] + c, tail), load(corner[1] + c, tail), wx);
        const vec bottom = blend(load(corner[2] + c, tail), load(corner[3] + c, tail), wx);
        store(dst + c, blend(top, bottom, wy), tail);
    }
}

template <class T>
void resize_strip(const sb_interpolate &resize, const sb_plane &x, const Region &region, const sb_plane &out) {
    for (int64_t oy = region.y0; oy < region.y1; ++oy) {
        const Source y = source(resize, resize.scale_h, oy, x.h);
        for (int64_t ox = region.x0; ox < region.x1; ++ox) {
            const Source s = source(resize, resize.scale_w, ox, x.w);
            T *dst = pixel<T>(out, region.n, oy, ox);
            if (resize.mode == SB_NEAREST) {
                memcpy(dst, pixel<T>(x, region.n, y.near, s.near), sizeof(T) * out.c);
            } else {
                const T *const corner[4] = {pixel<T>(x, region.n, y.near, s.near), pixel<T>(x, region.n, y.near, s.far),
                                            pixel<T>(x, region.n, y.far, s.near), pixel<T>(x, region.n, y.far, s.far)};
                bilinear_pixel(corner, y.far_weight, s.far_weight, dst, out.c);
            }
        }
    }
}

template <class T>
void run(const sb_interpolate &resize, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    threads = (int)minimum(threads, maximum(regions.count, 1));
    parallel_for(regions.count, threads, [&](int64_t i) { resize_strip<T>(resize, x, regions[i], out); });
}

} // namespace

void interpolate_run(const sb_interpolate &resize, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(resize, x, blocks, out, threads); });
}

} // namespace sb::SB_ISA
