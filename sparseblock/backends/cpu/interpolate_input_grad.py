"""The gradient of a resize's input, cpu backend: csrc/cpu/input_grad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.gradients import zeros


def interpolate_input_grad(grad, index, count, block, resize, size) -> torch.Tensor:
    """Float32 of `size`: of `resize`, to a map whose gradient is `grad`, of active blocks."""
    result = zeros(size, grad)
    native.lib().sb_interpolate_input_grad_run(
        byref(resize),
        byref(native.plane_of(grad)),
        byref(native.blocks_of(index, count, block)),
        byref(native.plane_of(result)),
        torch.get_num_threads(),
    )
    return result
