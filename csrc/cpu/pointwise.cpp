/* out = epilogue(x): activation((x + bias (+ or *) residual) * scale + shift). Copies, sums, products, lone batch norms, activations.
 * The storage type X of x may be another than T, that of out and residual: this is also the conversion.
 *
 * NHWC planes: vectors along the channels. Where x has a channel stride (an NCHW frame), pixels are gathered channel by
 * channel along the row. `residual` and x may be `out`. The frame only; borders are neither read nor written. */
#include "epilogue.h"
#include "kernels.h"
#include "parallel.h"
#include "regions.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 512, STRIP_COLUMNS = 512, PIXELS_AT_A_TIME = 16;

/* Consecutive pixels of an input: floats from pixel to pixel, and from channel to channel: 1, or 0 where one counts for all. */
template <class T>
struct Source {
    const T *first; /* NULL: there is no such input */
    int64_t step, step_c;

    Source(const T *first_, int64_t step_, int64_t step_c_) : first(first_), step(step_), step_c(step_c_) {}
    Source(const sb_plane *plane, const Region &region, int64_t y, int64_t x)
        : first(plane ? pixel<T>(*plane, region.n, y, x) : nullptr), step(plane ? plane->stride_x : 0),
          step_c(plane ? plane->stride_c : 0) {}
    Source at(int64_t channel) const { return {first ? first + channel * step_c : nullptr, step, step_c}; }
};

template <class T>
SB_INLINE vec read(const Source<T> &source, int64_t i, int lanes) {
    const T *p = source.first + i * source.step;
    return !source.step_c ? splat(load(p, 1)[0]) : lanes == W ? load(p) : load(p, lanes);
}

/* One vector of channels of consecutive pixels, or a piece of a row where all channels are alike. */
template <class X, class T>
SB_INLINE void column(const sb_epilogue &e, int64_t c, int lanes, const Source<X> &x, const Source<T> &residual, T *out,
                      int64_t step_out, int64_t pixels) {
    const vec bias = e.bias ? load(e.bias + c, lanes) : splat(-0.0f);
    const vec scale = e.scale ? load(e.scale + c, lanes) : splat(1.0f), shift = e.shift ? load(e.shift + c, lanes) : vec{};
    const vec slope = e.slope ? load(e.slope + c, lanes) : vec{};
    const bool affine = e.scale || e.shift, multiply = e.combine == SB_MULTIPLY;
    const auto value = [&](int64_t i) {
        vec v = read(x, i, lanes) + bias;
        if (residual.first) v = combine(v, read(residual, i, lanes), multiply);
        return affine ? fma(v, scale, shift) : v;
    };
    const auto write = [&](int64_t i, vec v) {
        if (lanes == W) store(out + i * step_out, v);
        else store(out + i * step_out, v, lanes);
    };
    if (!is_called(e.activation)) {
        for (int64_t i = 0; i < pixels; ++i) write(i, activate(value(i), e.activation, slope, e.low, e.high));
        return;
    }
    for (int64_t first = 0; first < pixels; first += PIXELS_AT_A_TIME) {
        vec values[PIXELS_AT_A_TIME];
        const int count = (int)minimum(PIXELS_AT_A_TIME, pixels - first);
        for (int i = 0; i < count; ++i) values[i] = value(first + i);
        activate_called(e.activation, (const float *)&slope, values, count);
        for (int i = 0; i < count; ++i) write(first + i, values[i]);
    }
}

/* A strip of NHWC pixels: a few pixels at a time, so that memory is read in order. Rows without gaps and without
 * parameters per channel are one long vector. */
template <class X, class T>
void strip_channels_last(const sb_epilogue &e, const sb_plane &x, const sb_plane *residual, const Region &region,
                         const sb_plane &out) {
    const bool flat = !e.bias && !e.scale && !e.shift && !e.slope && x.stride_x == out.c && out.stride_x == out.c &&
                      (!residual || (residual->stride_x == out.c && residual->stride_c == 1));
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const int64_t step = flat ? maximum(region.x1 - region.x0, 1) : PIXELS_AT_A_TIME;
        for (int64_t x0 = region.x0; x0 < region.x1; x0 += step) {
            const Source<X> source(&x, region, y, x0);
            const Source<T> second(residual, region, y, x0);
            T *dst = pixel<T>(out, region.n, y, x0);
            const int64_t pixels = minimum(step, region.x1 - x0), elements = pixels * out.c;
            if (flat) {
                const int64_t whole = elements / W, rest = whole * W;
                column(e, 0, W, Source<X>(source.first, W, 1), Source<T>(second.first, W, 1), dst, W, whole);
                if (rest < elements) column(e, 0, (int)(elements - rest), source.at(rest), second.at(rest), dst + rest, W, 1);
                continue;
            }
            for (int64_t c = 0; c < out.c; c += W)
                column(e, c, (int)minimum(W, out.c - c), source.at(c), second.at(c), dst + c, out.stride_x, pixels);
        }
    }
}

/* A strip whose input has a channel stride. One channel of one row at a time, vectors along the row; the output's row stays in
 * the cache. */
template <class X, class T>
void strip_strided(const sb_epilogue &e, const sb_plane &x, const sb_plane *residual, const Region &region, const sb_plane &out) {
    const auto gather = [](const auto *from, int64_t step, int lanes) {
        if (step == 1) return load(from, lanes);
        vec v = {};
        for (int i = 0; i < lanes; ++i) v[i] = load(from + i * step, 1)[0];
        return v;
    };
    for (int64_t y = region.y0; y < region.y1; ++y) {
        for (int64_t c = 0; c < out.c; ++c) {
            const EpilogueParams<1> p(e, c, 1);
            const vec slope = splat(p.slope[0]);
            for (int64_t x0 = region.x0; x0 < region.x1; x0 += W) {
                const int lanes = (int)minimum(W, region.x1 - x0);
                const Source<T> second = Source<T>(residual, region, y, x0).at(c);
                vec v = gather(pixel<X>(x, region.n, y, x0) + c * x.stride_c, x.stride_x, lanes) + splat(p.bias[0]);
                if (residual) v = combine(v, gather(second.first, second.step, lanes), p.multiply);
                if (p.affine) v = fma(v, splat(p.scale[0]), splat(p.shift[0]));
                v = activate_one(v, p.activation, slope, p.low, p.high);
                T *dst = pixel<T>(out, region.n, y, x0) + c;
                for (int i = 0; i < lanes; ++i) store(dst + i * out.stride_x, splat(v[i]), 1);
            }
        }
    }
}

/* The common case of the above: an NCHW image of three channels to NHWC, nothing else to do. */
template <class X, class T>
void strip_image(const sb_plane &x, const Region &region, const sb_plane &out) {
    typedef int32_t places __attribute__((vector_size(4 * SB_WIDTH)));
    places first_two[3], third[3]; /* where the lanes of three vectors of pixels come from: of two channels, then of these and the third */
    for (int i = 0; i < 3 * W; ++i) {
        const int channel = i % 3, from = i / 3;
        first_two[i / W][i % W] = channel == 1 ? W + from : from;
        third[i / W][i % W] = channel == 2 ? W + from : i % W;
    }
    for (int64_t y = region.y0; y < region.y1; ++y) {
        const X *src = pixel<X>(x, region.n, y, region.x0);
        T *dst = pixel<T>(out, region.n, y, region.x0);
        const int64_t pixels = region.x1 - region.x0;
        int64_t i = 0;
        for (; i + W <= pixels; i += W, src += W, dst += 3 * W) {
            const vec red = load(src), green = load(src + x.stride_c), blue = load(src + 2 * x.stride_c);
            for (int k = 0; k < 3; ++k) store(dst + k * W, __builtin_shuffle(__builtin_shuffle(red, green, first_two[k]), blue, third[k]));
        }
        for (; i < pixels; ++i, ++src, dst += 3)
            for (int c = 0; c < 3; ++c) store(dst + c, load(src + c * x.stride_c, 1), 1);
    }
}

template <class X, class T>
void run(const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out,
         int threads) {
    const bool computes = epilogue.bias || epilogue.scale || epilogue.shift || residual; /* a copy or an activation alone keeps subnormals */
    const bool copy = !computes && epilogue.activation == SB_IDENTITY;
    const bool image = copy && x.stride_c != 1 && x.stride_x == 1 && out.c == 3 && out.stride_x == 3;
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    const auto strip = [&](int64_t i) {
        if (image) strip_image<X, T>(x, regions[i], out);
        else if (x.stride_c != 1) strip_strided<X, T>(epilogue, x, residual, regions[i], out);
        else strip_channels_last<X, T>(epilogue, x, residual, regions[i], out);
    };
    parallel_for(regions.count, threads, [&](int64_t i) {
        if (!computes) return strip(i);
        const CountSubnormalsAsZero mode;
        strip(i);
    });
}

} // namespace

void pointwise_run(const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual, const sb_blocks *blocks,
                   const sb_plane &out, int threads) {
    with_storage(x.dtype, [&](auto from) {
        with_storage(out.dtype, [&](auto to) { run<decltype(from), decltype(to)>(epilogue, x, residual, blocks, out, threads); });
    });
}

} // namespace sb::SB_ISA
