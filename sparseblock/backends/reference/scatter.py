"""scatter of the reference backend."""

from __future__ import annotations


def scatter(packed, index, count, block, out) -> None:
    height, width = block
    for blocks, (image, row, col) in zip(packed, index[: int(count)].tolist(), strict=False):
        place = out[image, :, row * height : (row + 1) * height, col * width : (col + 1) * width]
        place.copy_(blocks[:, : place.shape[1], : place.shape[2]])
