/* What the convolution drivers (conv2d.cpp, conv2d_winograd.cpp) and the microkernels (conv2d_tile.cpp, conv2d_depthwise.cpp,
 * conv2d_pairs.cpp, conv2d_amx.cpp) share. */
#pragma once

#include "epilogue.h"
#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

/* The register tile: at most TILE_P pixels x TILE_V vectors of output channels. */
#if SB_WIDTH == 16
constexpr int TILE_P = 12, TILE_V = 2;
#elif SB_WIDTH == 8
constexpr int TILE_P = 6, TILE_V = 2;
#elif defined(__aarch64__)
constexpr int TILE_P = 5, TILE_V = 4;
#else
constexpr int TILE_P = 6, TILE_V = 2;
#endif
constexpr int UNIT = TILE_V * W; /* output channels of one unit of packed weights; the last unit of a group may be narrower */

constexpr int64_t STREAM_BYTES = 32 << 20; /* outputs from here on are stored past the caches: nobody would find them there */

/* Whether outputs are stored past the caches: `pixels` of them, in groups of `channels`. Only whole lines, parts of one would each go to
 * memory; and none over a residual, whose lines the caches hold. */
template <class T>
bool is_streamed(const sb_plane &out, const sb_plane *residual, int64_t channels, int64_t pixels) {
    constexpr int64_t LINE = 64 / sizeof(T);
    const bool whole_lines = UNIT % LINE == 0 && (uintptr_t)out.data % 64 == 0 &&
                             (out.stride_n | out.stride_y | out.stride_x | channels) % LINE == 0;
    const bool in_place = residual && residual->data == out.data;
    return whole_lines && !in_place && (int64_t)sizeof(T) * pixels * out.c >= STREAM_BYTES;
}

/* `length` consecutive elements of every pixel's input, `offset` elements from the pixel's base pointer, and of the unit's
 * weights, from step `weight` on. */
struct Run {
    int64_t offset, length, weight;
};

template <class T>
class Prefetch;

/* One register tile: sums over runs of w * x for `pixels` pixels and one unit of output channels. T is the storage type of residual
 * and output; inputs are of type In, be it in the plane or copied into scratch. */
template <class T, class In = float>
struct Tile {
    const In *const *x;       /* [pixels] base pointers; runs start at x[p] + channel + run.offset */
    const T *const *residual; /* [pixels], or NULL; channel 0 of the pixel */
    int64_t residual_c;       /* the residual's channel stride: 1, or 0 where one channel counts for all */
    T *const *out;            /* [pixels] channel 0 of the pixel */
    float *sums;              /* [pixels][UNIT]: partial sums between panels */
    const Run *runs, *runs_end;
    const float *weight; /* [step][vectors * W]; of pairs [step / 2][vectors * W] */
    const EpilogueParams<UNIT> *epilogue;
    int64_t channel, out_channel; /* first input and output channel */
    int pixels, vectors;
    bool first, last; /* panel: start from the bias, or from sums; finish and store to out, or to sums */
    bool stream;      /* store past the caches; see is_streamed */
};

template <class T>
void conv2d_tile(const Tile<T> &tile);
template <class T>
void conv2d_depthwise_tile(const Tile<T> &tile);
#if SB_WIDTH == 16
/* On processors with AVX512-BF16: two channels at a time. Runs are of even lengths. */
void conv2d_pairs_tile(const Tile<bf16, bf16> &tile);
#endif

/* On processors with AMX-BF16: 16 pixels x 16 output channels x 32 steps at a time. */
constexpr int AMX_ROWS = 16, AMX_STEPS = 32;
/* The inputs of up to AMX_ROWS pixels as the processor's tiles take them: rows `stride` bytes apart, AMX_STEPS elements of each in
 * one go. In the plane or a window, where runs are whole numbers of these, or copied, run after run. */
struct AmxRows {
    const bf16 *first;
    int64_t stride;
    bool copied;
};
/* The rows of all `pixels`, AMX_ROWS at a time, in place where that can be; else they are copied to `copies`, of amx_copy_stride(steps)
 * elements a pixel. A pixel's runs are `steps` elements together. `whole_runs`: all runs begin at, and are, multiples of AMX_STEPS. */
void amx_rows(const bf16 *const *x, int64_t channel, int64_t pixels, const Run *runs, const Run *runs_end, bool whole_runs, int64_t steps,
              bf16 *copies, AmxRows *rows);
/* An odd number of lines of the cache, so that the rows of a tile lie in different sets of it. */
SB_INLINE int64_t amx_copy_stride(int64_t steps) { return (ceil_div(steps, AMX_STEPS) | 1) * AMX_STEPS; }
/* Sets the tiles up for this thread, until amx_end. */
void amx_begin();
void amx_end();
/* `count` units of a group on the same `pixels` pixels, by `rows` of AMX_ROWS each; a unit's x and pixels are not read. `steps` of a
 * pixel in all, `unit_bytes` of weights; `lines` of `prefetch` for every 2 * AMX_ROWS pixels of a unit. */
void conv2d_amx_tiles(const Tile<bf16, bf16> *units, int64_t count, const AmxRows *rows, int64_t pixels, int64_t steps,
                      int64_t unit_bytes, Prefetch<bf16> &prefetch, int64_t lines);

/* Calls Kernel::multiply<P, V> of the tile's own shape: sizes are constants in the kernel, sums stay in registers. */
template <class Kernel, int V, int P, class T, class In>
void dispatch_pixels(const Tile<T, In> &t) {
    if (t.pixels == P) return Kernel::template multiply<P, V>(t);
    if constexpr (P > 1) dispatch_pixels<Kernel, V, P - 1>(t);
}

template <class Kernel, int V, class T, class In>
void dispatch(const Tile<T, In> &t) {
    if (t.vectors == V) return dispatch_pixels<Kernel, V, TILE_P>(t);
    if constexpr (V > 1) dispatch<Kernel, V - 1>(t);
}

/* Sums to start from, and where sums go at the end; one code for every tile shape. */
template <int P, int V, class T, class In>
SB_INLINE void start_sums(const Tile<T, In> &t, vec (&acc)[P][V]) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[p][v] = load((t.first ? t.epilogue->bias : t.sums + p * UNIT) + v * W);
}

template <int P, int V, class T, class In>
SB_INLINE void finish_sums(const Tile<T, In> &t, vec (&acc)[P][V]) {
    if (!t.last) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) store(t.sums + p * UNIT + v * W, acc[p][v]);
        return;
    }
    const EpilogueParams<UNIT> &e = *t.epilogue;
    const bool whole = e.lanes == V * W;
    const int tail = e.lanes - (V - 1) * W;
    if (t.residual) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            const T *residual = t.residual[p] + t.out_channel * t.residual_c;
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                const T *values = residual + v * W * t.residual_c;
                const vec r = !t.residual_c ? splat(load(values, 1)[0]) : v + 1 < V || whole ? load(values) : load(values, tail);
                acc[p][v] = combine(acc[p][v], r, e.multiply);
            }
        }
    }
    if (e.affine) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const vec scale = load(e.scale + v * W), shift = load(e.shift + v * W);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p) acc[p][v] = fma(acc[p][v], scale, shift);
        }
    }
    if (is_called(e.activation)) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            vec values[P];
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p) values[p] = acc[p][v];
            activate_called(e.activation, e.slope + v * W, values, P);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p) acc[p][v] = values[p];
        }
    } else if (e.activation != SB_IDENTITY) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const vec slope = load(e.slope + v * W);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p) acc[p][v] = activate(acc[p][v], e.activation, slope, e.low, e.high);
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
        T *out = t.out[p] + t.out_channel;
#pragma GCC unroll 4
        for (int v = 0; v + 1 < V; v += 2) {
            if (t.stream) stream(out + v * W, acc[p][v], acc[p][v + 1]);
            else if (v + 2 < V || whole) store(out + v * W, acc[p][v], acc[p][v + 1]);
            else {
                store(out + v * W, acc[p][v]);
                store(out + (v + 1) * W, acc[p][v + 1], tail);
            }
        }
        if constexpr (V % 2) {
            if (t.stream) stream(out + (V - 1) * W, acc[p][V - 1]);
            else if (whole) store(out + (V - 1) * W, acc[p][V - 1]);
            else store(out + (V - 1) * W, acc[p][V - 1], tail);
        }
    }
}

} // namespace sb::SB_ISA
