"""interpolate of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def interpolate(x, index, count, block, out, mode, align_corners, scale_factor) -> None:
    size = None if scale_factor else tuple(out.shape[2:])
    corners = align_corners if mode == "bilinear" else None
    (x,) = widened(x)
    dense = F.interpolate(x, size, tuple(scale_factor) if scale_factor else None, mode, corners)
    store(dense, index, count, block, out)
