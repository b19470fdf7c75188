/* What brings the channels of a pixel to one scale: softmax, division by the L2 norm, and layer normalization over channels.
 *
 *   out[c] = activation(v[c] * scale[c] + shift[c])
 *   softmax:    v[c] = e^(x[c] - max x) / sum over k of e^(x[k] - max x)
 *   L2:         v[c] = x[c] / max(sqrt(sum of x^2), eps)
 *   layer norm: v[c] = (x[c] - mean) / sqrt(variance + eps), variance = mean of (x - mean)^2
 *
 * A pixel at a time, vectors along its channels: it is read two or three times, from the cache. Sums are in double precision and
 * one order, and so is v until it is rounded to a float. NaN anywhere in a pixel is NaN everywhere in it. */
#include <math.h>

#include "epilogue.h"
#include "kernels.h"
#include "math.h"
#include "moments.h"
#include "parallel.h"
#include "scratch.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 256, STRIP_COLUMNS = 256;

/* Calls f(channel, lanes) for all channels, W at a time. */
template <class F>
SB_INLINE void for_channels(int64_t channels, F f) {
    int64_t c = 0;
    for (; c + W <= channels; c += W) f(c, W);
    if (c < channels) f(c, (int)(channels - c));
}

/* (value - center) * factor is v. */
struct Scale {
    double center, factor;
};

/* Of a softmax, whose values are the exponentials, which go to `powers`. */
template <class T>
SB_INLINE Scale exponentials(const T *x, int64_t channels, float *powers) {
    vec most = splat(-INFINITY);
    for_channels(channels, [&](int64_t c, int lanes) {
        const vec v = load_lanes(x + c, lanes);
        most = max(lanes == W ? v : first(v, lanes, -INFINITY), most);
    });
    const vec center = splat(largest_of(most)); /* of a NaN any: it is NaN below */
    wide_vec total = {};
    for_channels(channels, [&](int64_t c, int lanes) {
        vec power = exp(load_lanes(x + c, lanes) - center);
        if (lanes < W) power = first(power, lanes, 0.0f);
        store(powers + c, power);
        total += widen(power);
    });
    return {0.0, 1.0 / sum_of(total)};
}

template <class T>
SB_INLINE Scale unit_length(const T *x, int64_t channels, double eps) {
    wide_vec squares = {};
    for_channels(channels, [&](int64_t c, int lanes) {
        const wide_vec v = widen(load_lanes(x + c, lanes));
        squares += v * v;
    });
    const double norm = sqrt(sum_of(squares));
    return {0.0, 1.0 / (norm < eps ? eps : norm)};
}

template <class T>
SB_INLINE Scale unit_variance(const T *x, int64_t channels, double eps) {
    wide_vec total = {}, squares = {};
    for_channels(channels, [&](int64_t c, int lanes) { total += widen(load_lanes(x + c, lanes)); });
    const double mean = sum_of(total) / channels;
    for_channels(channels, [&](int64_t c, int lanes) {
        wide_vec d = widen(load_lanes(x + c, lanes)) - mean;
        if (lanes < W) d = first(d, lanes);
        squares += d * d;
    });
    return {mean, 1.0 / sqrt(sum_of(squares) / channels + eps)};
}

/* One pixel; V: what is scaled, x itself or the exponentials. x may be out. */
template <class V, class T>
SB_INLINE void write(const sb_epilogue &e, const Scale &s, const V *values, T *out, int64_t channels) {
    for_channels(channels, [&](int64_t c, int lanes) {
        vec v = narrow((widen(load_lanes(values + c, lanes)) - s.center) * s.factor);
        if (e.scale) v = v * load_lanes(e.scale + c, lanes);
        if (e.shift) v = v + load_lanes(e.shift + c, lanes);
        v = activate_one(v, e.activation, e.slope ? load_lanes(e.slope + c, lanes) : vec{}, e.low, e.high);
        if (lanes == W) store(out + c, v);
        else store(out + c, v, lanes);
    });
}

template <int KIND, class T>
void strip(const sb_channel_norm &norm, const sb_epilogue &e, const sb_plane &x, const Region &region, const sb_plane &out, float *powers) {
    for (int64_t y = region.y0; y < region.y1; ++y)
        for (int64_t ox = region.x0; ox < region.x1; ++ox) {
            const T *src = pixel<T>(x, region.n, y, ox);
            T *dst = pixel<T>(out, region.n, y, ox);
            if constexpr (KIND == SB_SOFTMAX) write(e, exponentials(src, out.c, powers), powers, dst, out.c);
            else if constexpr (KIND == SB_UNIT_LENGTH) write(e, unit_length(src, out.c, norm.eps), src, dst, out.c);
            else write(e, unit_variance(src, out.c, norm.eps), src, dst, out.c);
        }
}

template <int KIND, class T>
void run(const sb_channel_norm &norm, const sb_epilogue &epilogue, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out,
         int threads) {
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    parallel_for(regions.count, threads, [&](int64_t i) {
        float *powers = nullptr;
        if (KIND == SB_SOFTMAX) powers = (float *)scratch(SCRATCH_POWERS, sizeof(float) * ceil_div(out.c, W) * W);
        strip<KIND, T>(norm, epilogue, x, regions[i], out, powers);
    });
}

} // namespace

void channel_norm_run(const sb_channel_norm &norm, const sb_epilogue &epilogue, const sb_plane &x, const sb_blocks *blocks,
                      const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) {
        using T = decltype(zero);
        switch (norm.kind) {
        case SB_SOFTMAX:
            return run<SB_SOFTMAX, T>(norm, epilogue, x, blocks, out, threads);
        case SB_UNIT_LENGTH:
            return run<SB_UNIT_LENGTH, T>(norm, epilogue, x, blocks, out, threads);
        default:
            return run<SB_UNIT_VARIANCE, T>(norm, epilogue, x, blocks, out, threads);
        }
    });
}

} // namespace sb::SB_ISA
