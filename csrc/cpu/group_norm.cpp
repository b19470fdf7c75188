/* Group normalization by statistics that are kept from block to block.
 *
 *   mean = sum over cells and channels of pixels * mean_i / N
 *   variance = sum over them of (deviations_i + pixels * (mean_i - mean)^2) / N       (Chan, Golub, LeVeque 1979)
 *   out = activation(x * scale[c] + shift[c]),  scale = weight / sqrt(variance + eps),  shift = bias - mean * scale
 *
 * Scale and shift of every image are made first, in double precision and one order, then the active blocks are written. The
 * shift belongs to the scale as it was rounded, so a large mean cancels to within one rounding of mean * scale. */
#include <math.h>
#include <string.h>

#include "epilogue.h"
#include "kernels.h"
#include "moments.h"
#include "parallel.h"
#include "scratch.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t STRIP_PIXELS = 512, STRIP_COLUMNS = 512;

/* Of one image, [c] each. */
struct Statistics {
    double *mean, *deviations; /* of the channel's group; sums of the channel before */
    float *scale, *shift;

    static size_t bytes(int64_t channels) { return channels * (2 * sizeof(double) + 2 * sizeof(float)); }
    Statistics(void *memory, int64_t n, int64_t channels) {
        mean = (double *)((char *)memory + n * bytes(channels));
        deviations = mean + channels;
        scale = (float *)(deviations + channels);
        shift = scale + channels;
    }
};

/* Every group's channels get the sum over them, divided by `count`. */
void share(double *values, int64_t channels, int64_t groups, double count) {
    const int64_t width = channels / groups;
    for (int64_t first = 0; first < channels; first += width) {
        double total = 0.0;
        for (int64_t c = first; c < first + width; ++c) total += values[c];
        for (int64_t c = first; c < first + width; ++c) values[c] = total / count;
    }
}

void keep(double *to, wide_vec v, int lanes) {
    for (int i = 0; i < lanes; ++i) to[i] = v[i];
}

void scale_and_shift(const sb_group_norm &norm, const sb_epilogue &e, const sb_plane &cells, int64_t n, const Statistics &s) {
    const sb_moments &moments = norm.moments;
    const int64_t channels = cells.c / 2;
    const double count = (double)moments.height * moments.width * (channels / norm.groups);
    for (int64_t c = 0; c < channels; c += W) {
        const int lanes = (int)minimum(W, channels - c);
        keep(s.mean + c, map_sum(moments, cells, n, c, lanes), lanes);
    }
    share(s.mean, channels, norm.groups, count);
    for (int64_t c = 0; c < channels; c += W) {
        const int lanes = (int)minimum(W, channels - c);
        double means[W] = {};
        for (int i = 0; i < lanes; ++i) means[i] = s.mean[c + i];
        wide_vec mean, total = {};
        memcpy(&mean, means, sizeof mean);
        for_each_cell(moments, cells, n, [&](const float *cell, double pixels) {
            const wide_vec d = widen(load_lanes(cell + c, lanes)) - mean;
            total += widen(load_lanes(cell + channels + c, lanes)) + d * d * pixels;
        });
        keep(s.deviations + c, total, lanes);
    }
    share(s.deviations, channels, norm.groups, count);
    for (int64_t c = 0; c < channels; ++c) {
        const double inverse = 1.0 / sqrt(s.deviations[c] + norm.eps);
        s.scale[c] = (float)(e.scale ? inverse * e.scale[c] : inverse);
        s.shift[c] = (float)((e.shift ? e.shift[c] : 0.0) - s.mean[c] * s.scale[c]);
    }
}

template <class T>
SB_INLINE void normalize(const sb_epilogue &e, const Statistics &s, int64_t c, int lanes, const T *x, T *out) {
    const vec slope = e.slope ? load_lanes(e.slope + c, lanes) : vec{};
    vec v = fma(load_lanes(x + c, lanes), load_lanes(s.scale + c, lanes), load_lanes(s.shift + c, lanes));
    v = activate_one(v, e.activation, slope, e.low, e.high);
    if (lanes == W) store(out + c, v);
    else store(out + c, v, lanes);
}

template <class T>
void strip(const sb_epilogue &e, const Statistics &s, const sb_plane &x, const Region &region, const sb_plane &out) {
    for (int64_t y = region.y0; y < region.y1; ++y)
        for (int64_t ox = region.x0; ox < region.x1; ++ox) {
            const T *src = pixel<T>(x, region.n, y, ox);
            T *dst = pixel<T>(out, region.n, y, ox);
            int64_t c = 0;
            for (; c + W <= out.c; c += W) normalize(e, s, c, W, src, dst);
            if (c < out.c) normalize(e, s, c, (int)(out.c - c), src, dst);
        }
}

template <class T>
void run(const sb_group_norm &norm, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane &moments, const sb_blocks *blocks,
         const sb_plane &out, int threads) {
    const Regions regions(blocks, out, STRIP_PIXELS, STRIP_COLUMNS);
    if (!regions.count) return;
    void *memory = scratch(SCRATCH_MOMENTS, out.n * Statistics::bytes(out.c));
    parallel_for(out.n, threads, [&](int64_t n) {
        scale_and_shift(norm, epilogue, moments, n, Statistics(memory, n, out.c));
    });
    parallel_for(regions.count, threads, [&](int64_t i) {
        const Region region = regions[i];
        strip<T>(epilogue, Statistics(memory, region.n, out.c), x, region, out);
    });
}

} // namespace

void group_norm_run(const sb_group_norm &norm, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane &moments,
                    const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(norm, epilogue, x, moments, blocks, out, threads); });
}

} // namespace sb::SB_ISA
