/* out = epilogue(x): activation((x + bias + residual) * scale + shift). Copies, adds, lone batch norms, activations.
 * The storage type X of x may be another than T, that of out and residual: this is also the conversion.
 *
 * NHWC planes: vectors along the channels. Where x has a channel stride (an NCHW frame), pixels are gathered channel by
 * channel along the row. `residual` and x may be `out`. The frame only; borders are neither read nor written. */
#include "epilogue.h"
#include "kernels.h"
#include "regions.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 512, STRIP_COLUMNS = 512, PIXELS_AT_A_TIME = 16;

/* One vector of channels of consecutive pixels, or a piece of a row where all channels are alike. */
template <class X, class T>
SB_INLINE void column(const sb_epilogue &e, int64_t c, int lanes, const X *x, int64_t step_x, const T *residual,
                      int64_t step_r, T *out, int64_t step_out, int64_t pixels) {
    const vec bias = e.bias ? load(e.bias + c, lanes) : splat(-0.0f);
    const vec scale = e.scale ? load(e.scale + c, lanes) : splat(1.0f), shift = e.shift ? load(e.shift + c, lanes) : vec{};
    const vec slope = e.slope ? load(e.slope + c, lanes) : vec{};
    const bool affine = e.scale || e.shift;
    for (int64_t i = 0; i < pixels; ++i, x += step_x, residual += step_r, out += step_out) {
        vec v = (lanes == W ? load(x) : load(x, lanes)) + bias;
        if (residual) v += lanes == W ? load(residual) : load(residual, lanes);
        if (affine) v = fma(v, scale, shift);
        v = activate(v, e.activation, slope);
        if (lanes == W) store(out, v);
        else store(out, v, lanes);
    }
}

/* A strip of NHWC pixels: a few pixels at a time, so that memory is read in order. Rows without gaps and without
 * parameters per channel are one long vector. */
template <class X, class T>
void strip_channels_last(const sb_epilogue &e, const sb_plane &x, const sb_plane *residual, const Region &region,
                         const sb_plane &out) {
    const bool flat = !e.bias && !e.scale && !e.shift && !e.slope && x.stride_x == out.c && out.stride_x == out.c &&
                      (!residual || residual->stride_x == out.c);
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const int64_t step = flat ? maximum(region.x1 - region.x0, 1) : PIXELS_AT_A_TIME;
        for (int64_t x0 = region.x0; x0 < region.x1; x0 += step) {
            const X *src = pixel<X>(x, region.n, y, x0);
            const T *res = residual ? pixel<T>(*residual, region.n, y, x0) : nullptr;
            T *dst = pixel<T>(out, region.n, y, x0);
            const int64_t pixels = minimum(step, region.x1 - x0), elements = pixels * out.c;
            if (flat) {
                const int64_t whole = elements / W, rest = whole * W;
                column(e, 0, W, src, W, res, res ? W : 0, dst, W, whole);
                if (rest < elements)
                    column(e, 0, (int)(elements - rest), src + rest, W, res ? res + rest : nullptr, 0, dst + rest, W, 1);
                continue;
            }
            for (int64_t c = 0; c < out.c; c += W)
                column(e, c, (int)minimum(W, out.c - c), src + c, x.stride_x, res ? res + c : nullptr,
                       residual ? residual->stride_x : 0, dst + c, out.stride_x, pixels);
        }
    }
}

/* A strip whose input has a channel stride. One channel of one row at a time; the output's row stays in the cache. */
template <class X, class T>
void strip_strided(const sb_epilogue &e, const sb_plane &x, const sb_plane *residual, const Region &region, const sb_plane &out) {
    for (int64_t y = region.y0; y < region.y1; ++y) {
        for (int64_t c = 0; c < out.c; ++c) {
            const EpilogueParams<1> p(e, c, 1);
            const X *src = pixel<X>(x, region.n, y, region.x0) + c * x.stride_c;
            const T *res = residual ? pixel<T>(*residual, region.n, y, region.x0) + c : nullptr;
            T *dst = pixel<T>(out, region.n, y, region.x0) + c;
            for (int64_t i = 0; i < region.x1 - region.x0; ++i) {
                vec v = load(src + i * x.stride_x, 1) + p.bias[0];
                if (res) v += load(res + i * residual->stride_x, 1);
                if (p.affine) v = fma(v, splat(p.scale[0]), splat(p.shift[0]));
                store(dst + i * out.stride_x, activate(v, p.activation, splat(p.slope[0])), 1);
            }
        }
    }
}

/* The common case of the above: an NCHW image of three channels to NHWC, nothing else to do. */
template <class X, class T>
void strip_image(const sb_plane &x, const Region &region, const sb_plane &out) {
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const X *src = pixel<X>(x, region.n, y, region.x0);
        T *dst = pixel<T>(out, region.n, y, region.x0);
        const int64_t pixels = region.x1 - region.x0;
        for (int64_t i = 0; i < pixels; i += W, src += W, dst += 3 * W) {
            const int lanes = (int)minimum(W, pixels - i);
            T color[3][W];
            for (int c = 0; c < 3; ++c) store(color[c], load(src + c * x.stride_c, lanes));
            for (int lane = 0; lane < lanes; ++lane)
                for (int c = 0; c < 3; ++c) dst[3 * lane + c] = color[c][lane];
        }
    }
}

template <class X, class T>
void run(const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out,
         int threads) {
    const bool copy = !epilogue.bias && !epilogue.scale && !epilogue.shift && !residual && epilogue.activation == SB_IDENTITY;
    const bool image = copy && x.stride_c != 1 && x.stride_x == 1 && out.c == 3 && out.stride_x == 3;
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    threads = (int)minimum(threads, maximum(regions.count, 1));
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < regions.count; ++i) {
        if (image) strip_image<X, T>(x, regions[i], out);
        else if (x.stride_c != 1) strip_strided<X, T>(epilogue, x, residual, regions[i], out);
        else strip_channels_last<X, T>(epilogue, x, residual, regions[i], out);
    }
}

} // namespace

void pointwise_run(const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual, const sb_blocks *blocks,
                   const sb_plane &out, int threads) {
    with_storage(x.dtype, [&](auto from) {
        with_storage(out.dtype, [&](auto to) { run<decltype(from), decltype(to)>(epilogue, x, residual, blocks, out, threads); });
    });
}

} // namespace sb::SB_ISA
