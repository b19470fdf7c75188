"""How values are stored, and what is computed of them: float32, rounded once, to nearest even.

Triton's interpreter has bfloat16 as 16 bits and converts it without rounding and without subnormals; there, and only
there, the conversion is done on the bits. Its product of matrices is a library's, in which a row's bits depend on where
the row lies; there the terms are added one by one.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def widened(v):
    """float32 of what was loaded."""
    if INTERPRETED and v.dtype == tl.bfloat16:
        return (v.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return v.to(tl.float32)


@triton.jit
def rounded(v, plane):
    """float32 `v` as `plane`, a pointer, stores it."""
    if INTERPRETED and plane.dtype.element_ty == tl.bfloat16:
        bits = v.to(tl.int32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(v == v, nearest, 0x7FC0).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return v.to(plane.dtype.element_ty)


@triton.jit
def added_product(a, b, total):
    """`total` + the product of matrices as they are stored; float32 is not rounded before."""
    if INTERPRETED:
        return total + tl.sum(widened(a)[:, :, None] * widened(b)[None, :, :], axis=1)
    return tl.dot(a, b, total, input_precision="ieee")
