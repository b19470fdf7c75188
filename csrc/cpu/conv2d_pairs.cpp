/* The convolution microkernel on pairs of bfloat16 channels, for AVX512-BF16: conv2d_tile.cpp with a dot product of two for every
 * multiply-add. A product of two bfloat16 is exact in float32; the second of a pair is added first, each sum is rounded to nearest
 * even, and subnormal operands and results count as zero. */
#include "conv2d.h"

namespace sb::SB_ISA {
namespace {

struct Pairs {
    template <int P, int V>
    static void multiply(const Tile<bf16, bf16> &t) {
        vec acc[P][V];
        start_sums(t, acc);
        const bf16 *x[P];
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) x[p] = t.x[p] + t.channel;
        for (const Run *run = t.runs; run != t.runs_end; ++run) {
            const float *weight = t.weight + run->weight / 2 * V * W;
            const int64_t end = run->offset + run->length;
            for (int64_t i = run->offset; i < end; i += 2) {
                vec w[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) w[v] = load(weight + v * W);
                weight += V * W;
#pragma GCC unroll 16
                for (int p = 0; p < P; ++p) {
                    const vec pair = splat(*(const unaligned_pair *)(x[p] + i));
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v)
                        acc[p][v] = (vec)_mm512_dpbf16_ps((__m512)acc[p][v], (__m512bh)pair, (__m512bh)w[v]);
                }
            }
        }
        finish_sums(t, acc);
    }

private:
    typedef float unaligned_pair __attribute__((aligned(2), may_alias)); /* two channels; only moved */
};

} // namespace

void conv2d_pairs_tile(const Tile<bf16, bf16> &tile) { dispatch<Pairs, TILE_V>(tile); }

} // namespace sb::SB_ISA
