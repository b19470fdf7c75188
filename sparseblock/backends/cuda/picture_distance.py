"""picture_distance of the cuda backend: csrc/cuda/picture_distance.cu."""

from __future__ import annotations

from ctypes import c_double, c_int32, c_void_p

import torch

from sparseblock.backends.cuda.launch import launch


def picture_distance(a, b, most) -> torch.Tensor:
    a, b, (c, h, w) = a.contiguous(), b.contiguous(), a.shape[1:]
    written = torch.empty(c + 1, dtype=torch.float64, device=a.device)  # scratch, and the distance
    pointers = [c_void_p(x.data_ptr()) for x in (a, b, written, written[c:])]
    arguments = [*pointers[:2], c_int32(c), c_int32(h * w), c_double(most), *pointers[2:]]
    launch("picture_distance", work=1, arguments=arguments, device=a.device)
    return written[c]
