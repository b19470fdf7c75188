"""area_mean of the cuda backend: csrc/cuda/area_mean.cu."""

from __future__ import annotations

from ctypes import c_int32, c_void_p

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import WARP, kernels
from sparseblock.backends.cuda.launch import launch

_VECTOR = 4  # floats of 16 bytes


def area_mean(x, window, out) -> torch.Tensor:
    finite = torch.ones((), dtype=torch.bool, device=x.device)
    along = x.stride(3) == 1 and not any(size % _VECTOR for size in (window, x.shape[3]))
    vector = along and not any(step % _VECTOR for step in x.stride()[:3]) and x.data_ptr() % 16 == 0
    arguments = [native.plane_of(x), c_int32(window), c_void_p(out.data_ptr()), *map(c_int32, out.shape[2:])]
    arguments += [c_void_p(finite.data_ptr()), c_int32(vector)]
    warps = kernels()["area_mean"].threads // WARP
    launch("area_mean", work=-(-out.numel() // warps), arguments=arguments, device=x.device)
    return finite
