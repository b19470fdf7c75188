"""sample of the cpu backend: csrc/cpu/sample.cpp; of halves an operator of torch."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def sample(x, ys, xs, out) -> None:
    if x.dtype != torch.float32:
        out.copy_(x[:, :, ys[:, None], xs])
        return
    plane = native.plane_of(x)
    native.lib().sb_sample_run(byref(plane), ys.data_ptr(), len(ys), xs.data_ptr(), len(xs), out.data_ptr())
