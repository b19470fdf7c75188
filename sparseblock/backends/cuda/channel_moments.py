"""channel_moments of the cuda backend: csrc/cuda/channel_moments.cu."""

from __future__ import annotations

from ctypes import c_int32, c_void_p

import torch

from sparseblock.backends.cuda.launch import launch


def channel_moments(x) -> tuple[torch.Tensor, torch.Tensor]:
    x, (c, h, w) = x.contiguous(), x.shape[1:]
    moments = torch.empty(2, c, dtype=torch.float64, device=x.device)
    written = (c_void_p(moment.data_ptr()) for moment in moments)
    arguments = [c_void_p(x.data_ptr()), c_int32(c), c_int32(h * w), *written]
    launch("channel_moments", work=c, arguments=arguments, device=x.device)
    return moments[0], moments[1]
