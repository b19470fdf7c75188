"""exp, its relatives and the normal distribution: what smooth activations are made of.

Reductions and polynomials are those of csrc/cpu/math.h, which states their errors; they hold with fused multiply-adds
and without, so they do not depend on the vendor's own functions. NaN gives NaN: comparisons with it are false.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def at_least(low, v):
    return tl.where(v < low, low, v)


@triton.jit
def at_most(high, v):
    return tl.where(v > high, high, v)


@triton.jit
def power_of_two(n):
    """2^n for -126 <= n <= 127."""
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def reduced(x, low):
    """(r, n): x + low = n ln 2 + r with |r| <= 0.35. Adding 1.5 * 2^23 rounds to an integer, in the sum's last bits."""
    integer = (x + low) * 1.44269504 + 12582912.0
    n = integer - 12582912.0
    return (n * -0.693359375 + x) + n * 2.12194440e-4 + low, integer.to(tl.int32, bitcast=True) - 0x4B400000


@triton.jit
def expm1_reduced(r):
    """e^r - 1 for |r| <= 0.35."""
    q = ((1.991559224e-4 * r + 0.001394200658) * r + 0.008333270688) * r + 0.04166634279
    return r * r * ((q * r + 0.1666666683) * r + 0.5000000049) + r


@triton.jit
def exp(x, low):
    """e^(x + low); gradually to 0 below -87.3, infinity above 88.7."""
    r, n = reduced(at_most(89.0, at_least(-104.0, x)), low)
    half = n >> 1
    return (1.0 + expm1_reduced(r)) * power_of_two(half) * power_of_two(n - half)


@triton.jit
def expm1(x):
    """e^x - 1 for x <= 88; -1 from -17 on down."""
    r, n = reduced(at_most(88.0, at_least(-87.0, x)), 0.0)
    power = power_of_two(n)
    return power * expm1_reduced(r) + (power - 1.0)


@triton.jit
def log1p(u):
    """log(1 + u) for 0 <= u <= 1: 2 artanh(s) for s = u / (2 + u)."""
    s = tl.div_rn(u, 2.0 + u)
    t = s * s
    p = ((0.2442490913 * t + 0.2138996124) * t + 0.2862104194) * t + 0.3999867821
    return s * ((p * t + 0.6666667948) * t + 2.0)


@triton.jit
def sigmoid(v, factor):
    """factor / (1 + e^-v), with an exponential that cannot overflow."""
    e = exp(-tl.abs(v), 0.0)
    return tl.div_rn(tl.where(v > 0.0, factor, factor * e), 1.0 + e)


@triton.jit
def tanh(v):
    """(e^2a - 1) / (e^2a + 1) of a = |v|."""
    e = expm1(at_most(40.0, 2.0 * tl.abs(v)))
    t = tl.div_rn(e, e + 2.0)
    return tl.where(v < 0.0, -t, t)


@triton.jit
def normal_tail(a):
    """P(X > a), X normal, for a >= 0. The square of a's first 12 bits is exact; the rest is added after reduction."""
    a = at_most(15.0, a)
    t = tl.div_rn(tl.full(a.shape, 1.0, tl.float32), a * 0.296875 + 1.0)
    high = (a.to(tl.int32, bitcast=True) & ~0xFFF).to(tl.float32, bitcast=True)
    p = ((-0.02030755409 * t + 0.1141065956) * t - 0.2408298916) * t + 0.21568782
    p = ((p * t - 0.09630984803) * t + 0.1056970442) * t + 0.07540897599
    p = ((p * t + 0.1098326508) * t + 0.1182718429) * t + 0.1184423651
    return t * p * exp(-0.5 * high * high, -0.5 * (a - high) * (a + high))
