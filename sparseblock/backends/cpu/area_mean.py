"""area_mean of the cpu backend: csrc/cpu/maps.cpp."""

from __future__ import annotations

from ctypes import byref

from sparseblock.backends.cpu import native


def area_mean(x, window, out) -> bool:
    rows, cols = out.shape[2:]
    return bool(native.lib().sb_area_mean_run(byref(native.plane_of(x)), window, out.data_ptr(), rows, cols))
