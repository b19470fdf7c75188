"""area_mean of the cuda backend: csrc/cuda/pool2d.cu and pool2d_large.cu on whole images."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import max_pool2d


def area_mean(x, window, out) -> torch.Tensor:
    n, c, *size = x.shape
    rows, cols = (-(-side // window) for side in size)
    pool = native.Pool2d(native.POOL_AVG, window, window, window, window, 0, 0, 1, 1)
    # Pixels lie together, or every channel is an image.
    maps = x if x.stride(1) == 1 else x.reshape(n * c, 1, *size)
    means = torch.empty(
        (*maps.shape[:2], rows, cols), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    max_pool2d.run_maps(pool, maps, native.Blocks(), len(maps), (rows, cols), means)
    means = means.reshape(n, c, rows, cols)
    out.copy_(F.pad(means, (0, out.shape[3] - cols, 0, out.shape[2] - rows), mode="replicate"))
    return means.isfinite().all()
