"""The gradient of a resize's input, cuda backend: csrc/cuda/interpolate_input_grad.cu."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise
from sparseblock.backends.gradients import reach, zeros


def interpolate_input_grad(grad, index, count, block, resize, size) -> torch.Tensor:
    """Float32 of `size`: of `resize`, to a map whose gradient is `grad`, of active blocks."""
    result = zeros(size, grad)
    blocks = reach.interpolate(resize, index, count, block, size, grad.shape)
    arguments = [resize, native.plane_of(grad)]
    elementwise("interpolate_input_grad", arguments, blocks.index, blocks.count, blocks.block, result)
    return result
