/* The depthwise microkernel (groups == in_channels == out_channels): acc[p][k] = sum over runs of
 * weight[run][k] * x[p][channel + run.offset + k].
 *
 * Same tiles, runs (one per tap, length 1) and order of sums as conv2d_tile.cpp; the vector runs along the channels of the
 * input as well, so nothing is broadcast. One load per multiply-add: bound by the cache, not by arithmetic. */
#include "conv2d.h"

namespace sb::SB_ISA {
namespace {

/* WHOLE: the unit's last vector is full, as all others are. */
template <bool WHOLE, int P, int V, class T>
SB_INLINE void accumulate(const Tile<T> &t, vec (&acc)[P][V]) {
    const float *x[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) x[p] = t.x[p] + t.channel;
    const int tail = t.epilogue->lanes - (V - 1) * W;
    for (const Run *run = t.runs; run != t.runs_end; ++run) {
        const int64_t offset = run->offset;
        const float *weight = t.weight + run->weight * V * W;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const vec w = load(weight + v * W);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p) {
                const float *value = x[p] + offset + v * W;
                acc[p][v] = fma(WHOLE || v + 1 < V ? load(value) : load(value, tail), w, acc[p][v]);
            }
        }
    }
}

struct Depthwise {
    template <int P, int V, class T>
    static void multiply(const Tile<T> &t) {
        vec acc[P][V];
        start_sums(t, acc);
        if (t.epilogue->lanes == V * W) accumulate<true>(t, acc);
        else accumulate<false>(t, acc);
        finish_sums(t, acc);
    }
};

} // namespace

template <class T>
void conv2d_depthwise_tile(const Tile<T> &tile) {
    dispatch<Depthwise, TILE_V>(tile);
}

template void conv2d_depthwise_tile(const Tile<float> &tile);
template void conv2d_depthwise_tile(const Tile<bf16> &tile);
template void conv2d_depthwise_tile(const Tile<f16> &tile);

} // namespace sb::SB_ISA
