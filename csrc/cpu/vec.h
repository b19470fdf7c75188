/* Vectors of SB_WIDTH floats: the only place that knows an instruction set.
 *
 * SB_WIDTH (16: AVX-512, 8: AVX2, 4: SSE2, NEON or whatever the compiler makes of it) and SB_ISA come from the build. All of
 * a kernel's code, inline functions included, lives in the namespace sb::SB_ISA, so that the linker can never take a
 * function that was compiled for one instruction set into another. For the same reason kernels use no templates of
 * the standard library. */
#pragma once

#include <stdint.h>

#if SB_WIDTH >= 8
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define SB_INLINE static inline __attribute__((always_inline))

namespace sb::SB_ISA {

constexpr int W = SB_WIDTH;
typedef float vec __attribute__((vector_size(4 * SB_WIDTH)));
typedef float unaligned_vec __attribute__((vector_size(4 * SB_WIDTH), aligned(4), may_alias));

SB_INLINE vec load(const float *p) { return *(const unaligned_vec *)p; }
SB_INLINE void store(float *p, vec v) { *(unaligned_vec *)p = v; }

#if SB_WIDTH == 16
SB_INLINE vec splat(float x) { return (vec)_mm512_set1_ps(x); }
SB_INLINE vec fma(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
/* The second operand where either is NaN. */
SB_INLINE vec max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
SB_INLINE vec min(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
/* The first n lanes, the others zero. */
SB_INLINE vec load(const float *p, int n) { return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
SB_INLINE void store(float *p, vec v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#else
#if SB_WIDTH == 8
SB_INLINE vec splat(float x) { return (vec)_mm256_set1_ps(x); }
SB_INLINE vec fma(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
SB_INLINE vec max(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
SB_INLINE vec min(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
SB_INLINE vec splat(float x) { return vec{x, x, x, x}; }
#if defined(__ARM_NEON)
SB_INLINE vec fma(vec a, vec b, vec c) { return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
SB_INLINE vec fma(vec a, vec b, vec c) { return a * b + c; }
#endif
SB_INLINE vec max(vec a, vec b) { return a > b ? a : b; }
SB_INLINE vec min(vec a, vec b) { return a < b ? a : b; }
#endif
SB_INLINE vec load(const float *p, int n) {
    vec v = {};
    for (int i = 0; i < n; ++i) v[i] = p[i];
    return v;
}
SB_INLINE void store(float *p, vec v, int n) {
    for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

/* Stores past the caches, to an address that is a multiple of the vector; stream_end orders them before what follows. */
#if SB_WIDTH == 16
SB_INLINE void stream(float *p, vec v) { _mm512_stream_ps(p, (__m512)v); }
SB_INLINE void stream_end() { _mm_sfence(); }
#elif SB_WIDTH == 8
SB_INLINE void stream(float *p, vec v) { _mm256_stream_ps(p, (__m256)v); }
SB_INLINE void stream_end() { _mm_sfence(); }
#else
SB_INLINE void stream(float *p, vec v) { store(p, v); }
SB_INLINE void stream_end() {}
#endif

SB_INLINE int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
SB_INLINE int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
SB_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace sb::SB_ISA
