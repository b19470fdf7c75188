"""block_moments of the cuda backend: csrc/cuda/block_moments.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import kernel_of
from sparseblock.backends.cuda.moments import launch_sums


def block_moments(x, index, count, block, out, cell, order) -> None:
    blocks = native.blocks_of(index, count, block)
    arguments = [native.Moments(*x.shape[2:], *cell, order), native.plane_of(x), blocks, native.plane_of(out)]
    height, width = (min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    launch_sums(kernel_of("block_moments", x), len(index) * height * width, x.shape[1], arguments, out.device)
