"""Gradient of max_pool2d, cpu backend: csrc/cpu/input_grad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def max_pool2d_backward(call, grad, packed, needs):
    pool = native.Pool2d(native.POOL_MAX, *call.kernel_size, *call.stride, *call.padding, *call.dilation)
    return run(pool, call, grad, call.x)


def run(pool, call, grad, read):
    """`pool`, of either kind; `read` is what a maximum is taken of."""
    x = torch.zeros(call.shapes["x"]).contiguous(memory_format=torch.channels_last)
    native.lib().sb_pool2d_input_grad_run(
        byref(pool),
        byref(native.plane_of(read)),
        byref(native.plane_of(grad)),
        byref(native.blocks_of(call.index, call.count, call.block)),
        byref(native.plane_of(x)),
        torch.get_num_threads(),
    )
    return {"x": x}
