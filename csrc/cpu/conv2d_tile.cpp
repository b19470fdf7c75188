/* The convolution microkernel: acc[p][k] = sum over runs, i of weight[run, i][k] * x[p][channel + run.offset + i].
 *
 * Every element is one chain of fused multiply-adds in the order of the packed weights, whatever the tile's shape: this is
 * what makes a value independent of the blocks around it, of the threads and of how the input is laid out.
 * Pixels have their own base pointers (so a tile may span rows, even blocks) and share one index into them: changing
 * the run changes one register. Register tile TILE_P x TILE_V; a step loads TILE_V vectors of weights, broadcasts one
 * float per pixel, and does TILE_P * TILE_V fused multiply-adds. */
#include "conv2d.h"

namespace sb::SB_ISA {
namespace {

/* Few pixels use a weight up before memory has brought the next. A page ahead, where the processor's own prefetching ends. */
constexpr int FEW_PIXELS = 2 * TILE_P / 3;
constexpr int64_t AHEAD = 1024, LINE = 16; /* floats */

struct Broadcast {
    template <int P, int V, class T>
    static void multiply(const Tile<T> &t) {
        vec acc[P][V];
        start_sums(t, acc);
        const float *x[P];
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) x[p] = t.x[p] + t.channel;
        for (const Run *run = t.runs; run != t.runs_end; ++run) {
            const float *weight = t.weight + run->weight * V * W;
            const int64_t end = run->offset + run->length;
            for (int64_t i = run->offset; i < end; ++i) {
                vec w[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) w[v] = load(weight + v * W);
                if constexpr (P <= FEW_PIXELS)
#pragma GCC unroll 4
                    for (int64_t line = 0; line < V * W; line += LINE) __builtin_prefetch(weight + AHEAD + line);
                weight += V * W;
#pragma GCC unroll 16
                for (int p = 0; p < P; ++p) {
                    const vec value = splat(x[p][i]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) acc[p][v] = fma(value, w[v], acc[p][v]);
                }
            }
        }
        finish_sums(t, acc);
    }
};

} // namespace

template <class T>
void conv2d_tile(const Tile<T> &tile) {
    dispatch<Broadcast, TILE_V>(tile);
}

template void conv2d_tile(const Tile<float> &tile);
template void conv2d_tile(const Tile<bf16> &tile);
template void conv2d_tile(const Tile<f16> &tile);

} // namespace sb::SB_ISA
