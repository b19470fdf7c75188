"""pixel_unshuffle of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def pixel_unshuffle(x, index, count, block, out, downscale_factor) -> None:
    (x,) = widened(x)
    store(F.pixel_unshuffle(x, downscale_factor), index, count, block, out)
