"""group_norm of the cuda backend: csrc/cuda/group_norm_statistics.cu, then csrc/cuda/group_norm.cu."""

from __future__ import annotations

from ctypes import c_void_p

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import WARP
from sparseblock.backends.cuda.launch import elementwise, kernel_of
from sparseblock.backends.cuda.moments import launch_sums


def group_norm(
    x, moments, weight, bias, index, count, block, out, num_groups, eps, cell, activation, slope, bounds
) -> None:
    epilogue = native.epilogue_of(scale=weight, shift=bias, activation=activation, slope=slope, bounds=bounds)
    norm = native.GroupNorm(native.Moments(*out.shape[2:], *cell, 2), num_groups, eps)
    n, c = out.shape[:2]
    statistics = torch.empty(n, 2, c, device=out.device)
    pointer = c_void_p(statistics.data_ptr())
    arguments = [norm, epilogue, native.plane_of(moments), native.blocks_of(index, count, block), pointer]
    launch_sums("group_norm_statistics", n * num_groups, WARP, arguments, out.device)
    elementwise(kernel_of("group_norm", out), [epilogue, pointer, native.plane_of(x)], index, count, block, out)
