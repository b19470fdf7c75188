"""The gradient of a pooling's input, cuda backend: csrc/cuda/pool2d_input_grad.cu, of maxima after pool2d_taps.cu."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise
from sparseblock.backends.gradients import reach, zeros


def pool2d_input_grad(x, grad, index, count, block, pool, size) -> torch.Tensor:
    """Float32 of `size`: of `pool`, whose maxima are of x, to a map whose gradient is `grad`, of active blocks."""
    taps = grad
    if pool.kind == native.POOL_MAX:
        taps = torch.empty_like(grad)  # the memory of int32
        elementwise("pool2d_taps", [pool, native.plane_of(x)], index, count, block, taps)
    result = zeros(size, grad)
    blocks = reach.pool2d(pool, index, count, block, size, grad.shape)
    arguments = [pool, native.plane_of(taps), native.plane_of(grad)]
    elementwise("pool2d_input_grad", arguments, blocks.index, blocks.count, blocks.block, result)
    return result
