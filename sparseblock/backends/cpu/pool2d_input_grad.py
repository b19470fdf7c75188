"""The gradient of a pooling's input, cpu backend: csrc/cpu/input_grad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients import zeros


def pool2d_input_grad(x, grad, index, count, block, pool, size) -> torch.Tensor:
    """Float32 of `size`: of `pool`, whose maxima are of x, to a map whose gradient is `grad`, of active blocks."""
    result = zeros(size, grad)
    native.lib().sb_pool2d_input_grad_run(
        byref(pool),
        byref(native.plane_of(x)),
        byref(native.plane_of(grad)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(result)),
        torch.get_num_threads(),
    )
    return result
