"""The gradient of a convolution's weight, cuda backend: csrc/cuda/conv2d_weight_grad.cu and _depthwise.cu."""

from __future__ import annotations

from ctypes import c_int32, c_void_p

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import WARP
from sparseblock.backends.cuda.launch import is_aligned, launch
from sparseblock.backends.gradients.shares import shares

_TILE = 64  # rows, and columns, of a tile
_VECTOR = 4  # floats of 16 bytes


def conv2d_weight_grad(x, grad, index, count, block, conv, shape) -> torch.Tensor:
    """Float32 of `shape`: of the weight of `conv`, from x to a map whose gradient is `grad`, of active blocks."""
    k, in_group, *kernel = shape
    taps, out_group = kernel[0] * kernel[1], k // conv.groups
    depthwise = in_group == 1 and conv.groups > 1
    if depthwise:
        tiles = taps * -(-k // WARP)
    else:
        tiles = conv.groups * -(-out_group // _TILE) * -(-taps * in_group // _TILE)
    pixels = len(index) * min(block[0], grad.shape[2]) * min(block[1], grad.shape[3])
    parts = shares(tiles, pixels)
    sums = torch.empty(parts, k, *kernel, in_group, dtype=torch.float32, device=x.device)
    planes = [native.plane_of(x), native.plane_of(grad)]
    arguments = [conv, *planes, native.blocks_of(index, count, block), c_int32(parts), c_void_p(sums.data_ptr())]
    if not depthwise:
        channels = zip(planes, (in_group, out_group), strict=True)
        arguments += [c_int32(is_aligned(plane) and c % _VECTOR == 0) for plane, c in channels]
    name = "conv2d_weight_grad_depthwise" if depthwise else "conv2d_weight_grad"
    launch(name, work=tiles * parts, arguments=arguments, device=x.device)
    return sums.sum(0).permute(0, 3, 1, 2)
