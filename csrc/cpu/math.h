/* exp, its relatives and the normal distribution on vectors: what smooth activations are made of.
 *
 * Every lane is computed alike, so a value's bits do not depend on its place in a vector. Polynomials are minimax fits
 * (Remez exchange, 60 digits); their error is below a quarter of eps = 2^-23, so that what is stated is rounding. Errors are
 * relative to the true value, or to float32's smallest normal number where that is smaller, and hold with fused
 * multiply-adds and without; tests/kernels/test_math.py sweeps each function. NaN gives NaN: see the order of min and max. */
#pragma once

#include "vec.h"

namespace sb::SB_ISA {

typedef int32_t ivec __attribute__((vector_size(4 * SB_WIDTH)));

SB_INLINE vec absolute(vec v) { return (vec)((ivec)v & 0x7fffffff); }
SB_INLINE vec with_sign_of(vec magnitude, vec v) { return (vec)((ivec)magnitude | ((ivec)v & (ivec)splat(-0.0f))); }
/* 2^n for -126 <= n <= 127. */
SB_INLINE vec power_of_two(ivec n) { return (vec)((n + 127) << 23); }
/* c[0] + c[1] x + ... */
template <int N>
SB_INLINE vec polynomial(const float (&c)[N], vec x) {
    vec sum = splat(c[N - 1]);
    for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, splat(c[i]));
    return sum;
}

/* x + low = n ln 2 + r with |r| <= 0.35 and |low| much smaller than |x| where that is large; |n| <= 150.
 * Adding 1.5 * 2^23 rounds to an integer, which the sum's last bits then hold. ln 2 is the sum of 355/512, whose product
 * with n is exact, and a rest. */
struct Reduced {
    vec r;
    ivec n;
};
SB_INLINE Reduced reduce(vec x, vec low) {
    const vec integers = splat(12582912.0f), sum = fma(x + low, splat(1.44269504f), integers), n = sum - integers;
    return {fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x)) + low, (ivec)sum - (ivec)integers};
}

/* e^r - 1 for |r| <= 0.35: r + r^2 q(r), error 2^-31 |r|. */
SB_INLINE vec expm1_reduced(vec r) {
    const float q[] = {0.5000000049f, 0.1666666683f, 0.04166634279f, 0.008333270688f, 0.001394200658f, 1.991559224e-4f};
    return fma(r * r, polynomial(q, r), r);
}

/* e^(x + low), within 1 eps; gradually to 0 below -87.3, infinity above 88.7. In two factors, as 2^n may be out of range. */
SB_INLINE vec exp(vec x, vec low = vec{}) {
    const Reduced e = reduce(min(splat(89.0f), max(splat(-104.0f), x)), low);
    const ivec half = e.n >> 1;
    return (1.0f + expm1_reduced(e.r)) * power_of_two(half) * power_of_two(e.n - half);
}

/* e^x - 1 for x <= 88, within 2 eps also near 0; -1 from -17 on down. */
SB_INLINE vec expm1(vec x) {
    const Reduced e = reduce(min(splat(88.0f), max(splat(-87.0f), x)), vec{});
    const vec power = power_of_two(e.n);
    return fma(power, expm1_reduced(e.r), power - 1.0f);
}

/* log(1 + u) for 0 <= u <= 1, within 2 eps: 2 artanh(s) for s = u / (2 + u), a series in s^2. */
SB_INLINE vec log1p(vec u) {
    const float c[] = {2.0f, 0.6666667948f, 0.3999867821f, 0.2862104194f, 0.2138996124f, 0.2442490913f};
    const vec s = u / (2.0f + u);
    return s * polynomial(c, s * s);
}

/* factor / (1 + e^-x), with an exponential that cannot overflow. */
SB_INLINE vec sigmoid(vec x, vec factor) {
    const vec e = exp(-absolute(x));
    return (x > 0.0f ? factor : factor * e) / (1.0f + e);
}

/* (e^2a - 1) / (e^2a + 1) of a = |x|; 1 from a = 9.1 on. */
SB_INLINE vec tanh(vec x) {
    const vec e = expm1(min(splat(40.0f), 2.0f * absolute(x)));
    return with_sign_of(e / (e + 2.0f), x);
}

/* The upper tail of the standard normal distribution, P(X > a) for a >= 0, within 4 eps; 0 from 15 on.
 * e^(-a^2/2) t p(t) for t = 1 / (1 + 19/64 a). A rounding of a^2 would be multiplied by a^2 itself, so a is cut in two: the square of its
 * first 12 bits is exact, and what is left of a^2 is added after the reduction. */
SB_INLINE vec normal_tail(vec a) {
    const float p[] = {0.1184423651f,   0.1182718429f, 0.1098326508f,  0.07540897599f, 0.1056970442f,
                       -0.09630984803f, 0.21568782f,   -0.2408298916f, 0.1141065956f,  -0.02030755409f};
    a = min(splat(15.0f), a);
    const vec t = 1.0f / fma(a, splat(0.296875f), splat(1.0f)), high = (vec)((ivec)a & ~0xfff);
    return t * polynomial(p, t) * exp(-0.5f * high * high, -0.5f * (a - high) * (a + high));
}

} // namespace sb::SB_ISA
