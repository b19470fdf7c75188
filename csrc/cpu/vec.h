/* Vectors of SB_WIDTH floats: the only place that knows an instruction set.
 *
 * SB_WIDTH (16: AVX-512, 8: AVX2, 4: SSE2, NEON or whatever the compiler makes of it) and SB_ISA come from the build. All of
 * a kernel's code, inline functions included, lives in the namespace sb::SB_ISA, so that the linker can never take a
 * function that was compiled for one instruction set into another. For the same reason kernels use no templates of
 * the standard library. */
#pragma once

#include <stdint.h>

#if defined(__SSE__)
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

/* Storage types of planes beside float. load widens, exactly; store rounds to nearest even; NaN stays NaN. */
struct bf16 {
    uint16_t bits; /* the upper half of a float's */
};
struct f16 {
    uint16_t bits; /* IEEE 754 binary16 */
};
typedef uint32_t words __attribute__((vector_size(4 * SB_WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * SB_WIDTH)));
typedef uint16_t unaligned_halves __attribute__((vector_size(2 * SB_WIDTH), aligned(2), may_alias));

#if SB_WIDTH == 16
SB_INLINE words extend(halves h) { return (words)_mm512_cvtepu16_epi32((__m256i)h); }
#elif SB_WIDTH == 8
SB_INLINE words extend(halves h) { return (words)_mm256_cvtepu16_epi32((__m128i)h); }
#else
SB_INLINE words extend(halves h) { return __builtin_convertvector(h, words); }
#endif

SB_INLINE vec widen(halves h, bf16) { return (vec)(extend(h) << 16); }
/* In integers: the instruction for it flushes subnormals, and few processors have it. */
SB_INLINE halves narrow(vec v, bf16) {
    const words u = (words)v, rounded = u + 0x7fff + (u >> 16 & 1);
    return __builtin_convertvector((v == v ? rounded : u | 0x400000) >> 16, halves);
}

#if SB_WIDTH == 16
SB_INLINE vec widen(halves h, f16) { return (vec)_mm512_cvtph_ps((__m256i)h); }
SB_INLINE halves narrow(vec v, f16) { return (halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT); }
#elif SB_WIDTH == 8
SB_INLINE vec widen(halves h, f16) { return (vec)_mm256_cvtph_ps((__m128i)h); }
SB_INLINE halves narrow(vec v, f16) { return (halves)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__aarch64__)
SB_INLINE vec widen(halves h, f16) { return (vec)vcvt_f32_f16((float16x4_t)h); }
SB_INLINE halves narrow(vec v, f16) { return (halves)vcvt_f16_f32((float32x4_t)v); }
#else
SB_INLINE vec widen(halves h, f16) {
    const words u = extend(h), magnitude = (u & 0x7fff) << 13;
    const words normal = magnitude + (112u << 23); /* the exponents' bias */
    const words subnormal = (words)((vec)(normal + (1u << 23)) - 0x1p-14f); /* of no subnormal operand: see CountSubnormalsAsZero */
    const words finite = magnitude >= 0x00800000 ? normal : subnormal;
    return (vec)((magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite) | (u & 0x8000) << 16);
}
SB_INLINE halves narrow(vec v, f16) {
    const words u = (words)v, sign = u & 0x80000000, magnitude = u ^ sign;
    const words normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    const words subnormal = (words)((vec)magnitude + 0.5f) - 0x3f000000; /* the sum rounds at the last place of a half */
    const words special = magnitude > 0x7f800000 ? 0x7e00 | (magnitude >> 13 & 0x3ff) : words{} + 0x7c00;
    const words half = magnitude >= 0x47800000 ? special : magnitude >= 0x38800000 ? normal : subnormal;
    return __builtin_convertvector(half | sign >> 16, halves);
}
#endif

#if SB_WIDTH == 16
SB_INLINE halves load_halves(const void *p, int n) { return (halves)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p); }
SB_INLINE void store_halves(void *p, halves h, int n) { _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)h); }
#else
SB_INLINE halves load_halves(const void *p, int n) {
    halves h = {};
    for (int i = 0; i < n; ++i) h[i] = ((const uint16_t *)p)[i];
    return h;
}
SB_INLINE void store_halves(void *p, halves h, int n) {
    for (int i = 0; i < n; ++i) ((uint16_t *)p)[i] = h[i];
}
#endif

#if SB_WIDTH == 16
/* Two vectors, one behind the other. */
template <class T>
SB_INLINE __m512i narrow(vec a, vec b, T) {
    return _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)narrow(a, T())), (__m256i)narrow(b, T()), 1);
}
#endif

template <class T>
SB_INLINE vec load(const T *p) { return widen((halves)*(const unaligned_halves *)p, T()); }
template <class T>
SB_INLINE vec load(const T *p, int n) { return widen(load_halves(p, n), T()); }
template <class T>
SB_INLINE void store(T *p, vec v) { *(unaligned_halves *)p = narrow(v, T()); }
template <class T>
SB_INLINE void store(T *p, vec v, int n) { store_halves(p, narrow(v, T()), n); }

/* Vectors one behind the other. Of halves a whole line of the cache at once: written in two parts it takes several times as long where it
 * is in no cache. */
template <class T>
SB_INLINE void store(T *p, vec a, vec b) {
#if SB_WIDTH == 16
    if constexpr (sizeof(T) == 2) {
        _mm512_storeu_si512(p, narrow(a, b, T()));
        return;
    }
#endif
    store(p, a);
    store(p + W, b);
}

/* The same lanes in double precision, for sums over many: two registers. (One vector twice as long as a register is kept in memory.) */
typedef double doubles __attribute__((vector_size(4 * SB_WIDTH)));
struct wide_vec {
    doubles low, high; /* lanes [0, W / 2) and [W / 2, W) */

    double operator[](int i) const { return i < W / 2 ? low[i] : high[i - W / 2]; }
};
SB_INLINE wide_vec operator+(wide_vec a, wide_vec b) { return {a.low + b.low, a.high + b.high}; }
SB_INLINE wide_vec operator-(wide_vec a, wide_vec b) { return {a.low - b.low, a.high - b.high}; }
SB_INLINE wide_vec operator*(wide_vec a, wide_vec b) { return {a.low * b.low, a.high * b.high}; }
SB_INLINE wide_vec operator-(wide_vec a, double b) { return {a.low - b, a.high - b}; }
SB_INLINE wide_vec operator*(wide_vec a, double b) { return {a.low * b, a.high * b}; }
SB_INLINE wide_vec operator/(wide_vec a, double b) { return {a.low / b, a.high / b}; }
SB_INLINE void operator+=(wide_vec &a, wide_vec b) { a = a + b; }

#if SB_WIDTH == 16
SB_INLINE wide_vec widen(vec v) {
    const __m512 u = (__m512)v;
    return {(doubles)_mm512_cvtps_pd(_mm512_castps512_ps256(u)), (doubles)_mm512_cvtps_pd(_mm512_extractf32x8_ps(u, 1))};
}
SB_INLINE vec narrow(wide_vec v) {
    const __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)v.low));
    return (vec)_mm512_insertf32x8(low, _mm512_cvtpd_ps((__m512d)v.high), 1);
}
#elif SB_WIDTH == 8
SB_INLINE wide_vec widen(vec v) {
    const __m256 u = (__m256)v;
    return {(doubles)_mm256_cvtps_pd(_mm256_castps256_ps128(u)), (doubles)_mm256_cvtps_pd(_mm256_extractf128_ps(u, 1))};
}
SB_INLINE vec narrow(wide_vec v) {
    const __m256 low = _mm256_castps128_ps256(_mm256_cvtpd_ps((__m256d)v.low));
    return (vec)_mm256_insertf128_ps(low, _mm256_cvtpd_ps((__m256d)v.high), 1);
}
#else
SB_INLINE wide_vec widen(vec v) { return {doubles{v[0], v[1]}, doubles{v[2], v[3]}}; }
SB_INLINE vec narrow(wide_vec v) { return vec{(float)v.low[0], (float)v.low[1], (float)v.high[0], (float)v.high[1]}; }
#endif

/* Of all lanes: the sum, halves of them being added up until one is left; and the largest, where none is NaN. */
SB_INLINE double sum_of(wide_vec v) {
    const doubles a = v.low + v.high;
#if SB_WIDTH == 16
    return _mm512_reduce_add_pd((__m512d)a);
#elif SB_WIDTH == 8
    return (a[0] + a[2]) + (a[1] + a[3]);
#else
    return a[0] + a[1];
#endif
}
SB_INLINE float largest_of(vec v) {
#if SB_WIDTH == 16
    return _mm512_reduce_max_ps((__m512)v);
#else
    float most = v[0];
    for (int i = 1; i < W; ++i) most = v[i] > most ? v[i] : most;
    return most;
#endif
}

/* The first n lanes, and `rest` or zero in the others. */
SB_INLINE vec first(vec v, int n, float rest) {
    typedef int32_t places __attribute__((vector_size(4 * SB_WIDTH)));
    places place = {};
    for (int i = 0; i < W; ++i) place[i] = i;
    return place < n ? v : splat(rest);
}
SB_INLINE wide_vec first(wide_vec v, int n) {
    typedef int64_t places __attribute__((vector_size(4 * SB_WIDTH)));
    places place = {};
    for (int i = 0; i < W / 2; ++i) place[i] = i;
    return {place < (int64_t)n ? v.low : doubles{}, place < (int64_t)(n - W / 2) ? v.high : doubles{}};
}

/* Stores past the caches, to an address that is a multiple of what is stored; stream_end orders them before what follows. Halves only
 * by two vectors in AVX-512, which are a line: its parts would each go to memory. */
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
template <class T>
SB_INLINE void stream(T *p, vec v) { store(p, v); }
SB_INLINE void stream(float *p, vec a, vec b) {
    stream(p, a);
    stream(p + W, b);
}
template <class T>
SB_INLINE void stream(T *p, vec a, vec b) {
#if SB_WIDTH == 16
    _mm512_stream_si512((__m512i *)p, narrow(a, b, T()));
#else
    store(p, a, b);
#endif
}

/* While one lives, its thread counts subnormal numbers as zero, as operands and as results: Intel's processors take a hundred
 * times as long for them. Conversions to halves and from them stay exact. Copies through vectors do as well; maximum and minimum
 * are no copies. */
class CountSubnormalsAsZero {
#if defined(__SSE__)
    const unsigned control;

  public:
    CountSubnormalsAsZero() : control(_mm_getcsr()) { _mm_setcsr(control | 0x8040); }
    ~CountSubnormalsAsZero() { _mm_setcsr(control); }
#elif defined(__aarch64__)
    uint64_t control;

  public:
    CountSubnormalsAsZero() {
        asm volatile("mrs %0, fpcr" : "=r"(control));
        asm volatile("msr fpcr, %0" : : "r"(control | 1ull << 24) : "memory");
    }
    ~CountSubnormalsAsZero() { asm volatile("msr fpcr, %0" : : "r"(control) : "memory"); }
#else
  public:
    CountSubnormalsAsZero() {}
#endif
    CountSubnormalsAsZero(const CountSubnormalsAsZero &) = delete;
};

SB_INLINE int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
SB_INLINE int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
SB_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace sb::SB_ISA
