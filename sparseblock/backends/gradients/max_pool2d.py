"""Gradient of max_pool2d."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients import compute


def max_pool2d_backward(call, grad, packed, needs):
    pool = native.Pool2d(native.POOL_MAX, *call.kernel_size, *call.stride, *call.padding, *call.dilation)
    return of_pool(pool, call, grad, call.x)


def of_pool(pool, call, grad, read):
    """`pool`, of either kind; `read` is what a maximum is taken of."""
    return {"x": compute("pool2d_input_grad", read, grad, call.index, call.count, call.block, pool, call.shapes["x"])}
