"""Gradient of adaptive_avg_pool2d."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients.max_pool2d import of_pool


def adaptive_avg_pool2d_backward(call, grad, packed, needs):
    return of_pool(native.Pool2d(native.POOL_AVG, adaptive=1), call, grad, grad)
