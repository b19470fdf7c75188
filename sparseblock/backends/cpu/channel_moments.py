"""channel_moments of the cpu backend: csrc/cpu/area_mean.cpp."""

from __future__ import annotations

from ctypes import c_float

from sparseblock.backends.cpu import native


def channel_moments(x) -> tuple[list[float], list[float]]:
    x, c = x.contiguous(), x.shape[1]
    mean, variance = (c_float * c)(), (c_float * c)()
    native.lib().sb_channel_moments_run(x.data_ptr(), c, x.numel() // c, mean, variance)
    return list(mean), list(variance)
