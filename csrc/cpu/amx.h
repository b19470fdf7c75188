/* The processor's tile instructions. The compiler does not know that loads read memory: what they read is to be stored in another
 * translation unit, or long before. Built with sanitizers (SB_PLAIN_TILES) they are plain loops, of which every access is checked, and run
 * on any processor with AVX512-BF16. */
#pragma once

#if defined(SB_PLAIN_TILES)
#include <string.h>

#include "vec.h"

namespace sb::SB_ISA {

inline thread_local float plain_tiles[8][16][16];

inline void tile_zero(int tile) { memset(plain_tiles[tile], 0, sizeof(plain_tiles[tile])); }
inline void tile_load(int tile, const void *from, int64_t stride) {
    for (int row = 0; row < 16; ++row) memcpy(plain_tiles[tile][row], (const char *)from + row * stride, 64);
}
inline void tile_store(int tile, void *to, int64_t stride) {
    for (int row = 0; row < 16; ++row) memcpy((char *)to + row * stride, plain_tiles[tile][row], 64);
}
/* sums[row][col] += the products of pairs (row, k) of `a` and (k, col) of `b`. */
inline void tile_multiply(int sums, int a, int b) {
    for (int row = 0; row < 16; ++row)
        for (int col = 0; col < 16; ++col) {
            float even = 0, odd = 0;
            for (int k = 0; k < 16; ++k) {
                uint32_t x, w;
                memcpy(&x, &plain_tiles[a][row][k], 4);
                memcpy(&w, &plain_tiles[b][k][col], 4);
                const uint32_t halves[4] = {x << 16, w << 16, x & 0xffff0000, w & 0xffff0000};
                float values[4];
                memcpy(values, halves, sizeof(halves));
                even += values[0] * values[1];
                odd += values[2] * values[3];
            }
            plain_tiles[sums][row][col] += even + odd;
        }
}
template <class Config>
void tile_configure(const Config &) {}
inline void tile_release() {}

} // namespace sb::SB_ISA
#else
#include <immintrin.h>

#define tile_zero(tile) _tile_zero(tile)
#define tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride) _tile_stored(tile, to, stride)
#define tile_multiply(sums, a, b) _tile_dpbf16ps(sums, a, b)
#define tile_configure(config) _tile_loadconfig(&(config))
#define tile_release() _tile_release()
#endif
