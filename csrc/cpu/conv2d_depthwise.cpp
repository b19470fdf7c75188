/* The depthwise microkernel (groups == in_channels == out_channels): acc[p][k] = sum over runs of
 * weight[run][k] * x[p][channel + run.offset + k].
 *
 * Same tiles, runs (one per tap, length 1) and order of sums as conv2d_tile.cpp; the vector runs along the channels of the
 * input as well, so nothing is broadcast. One load per multiply-add: bound by the cache, not by arithmetic. */
#include "conv2d.h"

namespace sb::SB_ISA {
namespace {

constexpr int DEPTHWISE_P = TILE_P < 8 ? TILE_P : 8;

template <int P, int V>
void multiply(const Tile &t) {
    vec acc[P][V];
    start_sums(t, acc);
    const float *x[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) x[p] = t.x[p] + t.channel;
    const float *weight = t.weight;
    const bool whole = t.epilogue->lanes == V * W;
    const int tail = t.epilogue->lanes - (V - 1) * W;
    for (const Run *run = t.runs; run != t.runs_end; ++run) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const vec w = load(weight + v * W);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p) {
                const float *value = x[p] + run->offset + v * W;
                acc[p][v] = fma(v + 1 < V || whole ? load(value) : load(value, tail), w, acc[p][v]);
            }
        }
        weight += V * W;
    }
    finish_sums(t, acc);
}

template <int V>
void multiply_pixels(Tile t) {
    while (t.pixels >= DEPTHWISE_P) {
        multiply<DEPTHWISE_P, V>(t);
        t.x += DEPTHWISE_P;
        t.out += DEPTHWISE_P;
        t.residual += t.residual ? DEPTHWISE_P : 0;
        t.sums += DEPTHWISE_P * UNIT;
        t.pixels -= DEPTHWISE_P;
    }
    for (; t.pixels; --t.pixels) {
        multiply<1, V>(t);
        ++t.x;
        ++t.out;
        t.residual += t.residual ? 1 : 0;
        t.sums += UNIT;
    }
}

template <int V>
void multiply_vectors(const Tile &t) {
    if (t.vectors == V) return multiply_pixels<V>(t);
    if constexpr (V > 1) multiply_vectors<V - 1>(t);
}

} // namespace

void conv2d_depthwise_tile(const Tile &tile) { multiply_vectors<TILE_V>(tile); }

} // namespace sb::SB_ISA
