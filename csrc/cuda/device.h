/* All that a kernel may use of the machine. On CUDA these are intrinsics and PTX (hardware.h); with SB_EMULATED the host
 * compiler takes the same kernels, and threads, barriers, shared memory and the tensor cores are stood in for (emulated/).
 *
 * A kernel source is compiled once for every line of kernels.txt, which defines SB_NAME, SB_THREADS and what else it says:
 *
 *     #include "device.h"
 *     namespace sb::SB_NAME { template <class T> SB_DEVICE void run(const sb_pool2d &pool, ...) {...} }
 *     SB_ENTRY(sb_pool2d pool, sb_plane x, sb_blocks blocks, sb_plane out) { sb::SB_NAME::run<SB_T>(pool, x, blocks, out); }
 *
 * Groups are one-dimensional, SB_THREADS threads and SB_SHARED bytes of shared memory each, and so is the grid; SB_GROUPS_PER_SM,
 * 1 unless a line says otherwise, of them share a multiprocessor. Work is persistent: groups take it in steps of group_count(). */
#pragma once

#include "sparseblock.h"

#ifndef SB_GROUPS_PER_SM
#define SB_GROUPS_PER_SM 1
#endif

#ifndef SB_SHARED
#define SB_SHARED 0
#endif

#ifdef SB_EMULATED
#include "emulated/device.h"
#else
#include "hardware.h"
#endif

namespace sb {

constexpr int WARP = 32;
static_assert(SB_THREADS % WARP == 0, "a group is made of whole warps");
SB_DEVICE constexpr int thread_count() { return SB_THREADS; }
SB_DEVICE int lane_index() { return thread_index() % WARP; }
SB_DEVICE int warp_index() { return thread_index() / WARP; }

SB_DEVICE constexpr int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
SB_DEVICE constexpr int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
SB_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* How values are stored. Kernels compute in float and round what they store once, to nearest even. */
struct half {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};
struct tf32 {}; /* only a kind of multiplication */

SB_DEVICE float to_float(float v) { return v; }
SB_DEVICE float to_float(half v) { return float_of_half(v.bits); }
SB_DEVICE float to_float(bfloat16 v) { return float_of_bits((uint32_t)v.bits << 16); }

template <class T>
SB_DEVICE T from_float(float v);
template <>
SB_DEVICE float from_float<float>(float v) { return v; }
template <>
SB_DEVICE half from_float<half>(float v) { return {half_of_float(v)}; }
template <>
SB_DEVICE bfloat16 from_float<bfloat16>(float v) { return {bfloat16_of_float(v)}; }

/* N values that lie together, and are moved by one instruction where they lie at a multiple of their size: 2, 4, 8 or 16 bytes. */
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
    T v[N];
    SB_DEVICE T &operator[](int i) { return v[i]; }
    SB_DEVICE const T &operator[](int i) const { return v[i]; }
};
template <int N, class T>
SB_DEVICE Vector<T, N> load_vector(const T *p) {
    check_aligned(p, sizeof(T) * N);
    return *(const Vector<T, N> *)p;
}
template <class T, int N>
SB_DEVICE void store_vector(T *p, const Vector<T, N> &v) {
    check_aligned(p, sizeof(T) * N);
    *(Vector<T, N> *)p = v;
}

/* d += a b of one warp, a 16 x K and b K x 8, by tensor cores with fp32 accumulators; K is 16, or 8 of TF32. Lane l holds,
 * for g = l / 4 and t = l % 4, in every register two consecutive halves or one TF32:
 *   a: rows g, g + 8, g, g + 8; columns from 2t, 2t, 2t + 8, 2t + 8 (TF32: t, t, t + 4, t + 4)
 *   b: column g; rows from 2t, 2t + 8 (TF32: t, t + 4)
 *   d: rows g, g, g + 8, g + 8; columns 2t, 2t + 1, 2t, 2t + 1 */
SB_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], half) { multiply_half(d, a, b); }
SB_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bfloat16) { multiply_bfloat16(d, a, b); }
SB_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], tf32) { multiply_tf32(d, a, b); }

} // namespace sb
