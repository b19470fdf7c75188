"""gather of the reference backend."""

from __future__ import annotations

import torch.nn.functional as F


def gather(x, index, count, block, out, halo) -> None:
    height, width = block
    padded = F.pad(x, (halo, halo + width, halo, halo + height))
    for i, (image, row, col) in enumerate(index[: int(count)].tolist()):
        top, left = row * height, col * width
        out[i] = padded[image, :, top : top + height + 2 * halo, left : left + width + 2 * halo]
