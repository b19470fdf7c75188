"""Gradient of avg_pool2d."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients.max_pool2d import of_pool


def avg_pool2d_backward(call, grad, packed, needs):
    counted = (call.count_include_pad, call.divisor_override or 0)
    pool = native.Pool2d(native.POOL_AVG, *call.kernel_size, *call.stride, *call.padding, 1, 1, *counted)
    return of_pool(pool, call, grad, grad)
