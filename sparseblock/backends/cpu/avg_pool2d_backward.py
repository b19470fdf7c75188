"""Gradient of avg_pool2d, cpu backend: csrc/cpu/input_grad.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import max_pool2d_backward, native


def avg_pool2d_backward(call, grad, packed, needs):
    counted = (call.count_include_pad, call.divisor_override or 0)
    pool = native.Pool2d(native.POOL_AVG, *call.kernel_size, *call.stride, *call.padding, 1, 1, *counted)
    return max_pool2d_backward.run(pool, call, grad, grad)
