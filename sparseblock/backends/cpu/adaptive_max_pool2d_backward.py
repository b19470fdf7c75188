"""Gradient of adaptive_max_pool2d, cpu backend: csrc/cpu/input_grad.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import max_pool2d_backward, native


def adaptive_max_pool2d_backward(call, grad, packed, needs):
    return max_pool2d_backward.run(native.Pool2d(native.POOL_MAX, adaptive=1), call, grad, call.x)
