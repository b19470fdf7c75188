"""The gradient of a convolution's weight, cpu backend: csrc/cpu/conv2d_weight_grad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def conv2d_weight_grad(x, grad, index, count, block, conv, shape) -> torch.Tensor:
    """Float32 of `shape`: of the weight of `conv`, from x to a map whose gradient is `grad`, of active blocks."""
    result = torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)
    native.lib().sb_conv2d_weight_grad_run(
        byref(conv),
        byref(native.plane_of(x)),
        byref(native.plane_of(grad)),
        byref(native.blocks_of(index, count, block)),
        result.data_ptr(),
        None,
        torch.get_num_threads(),
    )
    return result
