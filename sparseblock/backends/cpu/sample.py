"""sample of the cpu backend: csrc/cpu/sample.cpp."""

from __future__ import annotations

from ctypes import byref

from sparseblock.backends.cpu import native


def sample(x, ys, xs, out) -> None:
    plane = native.plane_of(x)
    native.lib().sb_sample_run(byref(plane), ys.data_ptr(), len(ys), xs.data_ptr(), len(xs), out.data_ptr())
