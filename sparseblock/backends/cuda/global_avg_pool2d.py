"""global_avg_pool2d of the cuda backend: csrc/cuda/global_avg_pool2d.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import kernel_of
from sparseblock.backends.cuda.moments import launch_sums


def global_avg_pool2d(moments, index, count, block, out, size, cell) -> None:
    blocks = native.blocks_of(index, count, block)
    arguments = [native.Moments(*size, *cell, 1), native.plane_of(moments), blocks, native.plane_of(out)]
    launch_sums(kernel_of("global_avg_pool2d", out), len(index), out.shape[1], arguments, out.device)
