"""picture_distance of the cpu backend: csrc/cpu/area_mean.cpp."""

from __future__ import annotations

from sparseblock.backends.cpu import native


def picture_distance(a, b, most) -> float:
    a, b, c = a.contiguous(), b.contiguous(), a.shape[1]
    return native.lib().sb_picture_distance_run(a.data_ptr(), b.data_ptr(), c, a.numel() // c, most)
