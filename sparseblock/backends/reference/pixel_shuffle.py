"""pixel_shuffle of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.reference.masked import store, widened


def pixel_shuffle(x, index, count, block, out, upscale_factor) -> None:
    (x,) = widened(x)
    store(F.pixel_shuffle(x, upscale_factor), index, count, block, out)
