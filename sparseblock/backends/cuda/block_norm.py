"""block_norm of the cuda backend: csrc/cuda/block_norm.cu."""

from __future__ import annotations

from ctypes import c_int32

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import WARP
from sparseblock.backends.cuda.launch import kernel_of
from sparseblock.backends.cuda.moments import launch_sums


def block_norm(x, y, index, count, block, out, cell, norm) -> None:
    given, plane = native.BlockNorm(native.NORMS[norm], *cell), native.plane_of(x)
    second = plane if y is None else native.plane_of(y)
    blocks = native.blocks_of(index, count, block)
    arguments = [given, plane, second, c_int32(y is not None), blocks, native.plane_of(out)]
    height, width = (min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    launch_sums(kernel_of("block_norm", x), len(index) * height * width, WARP, arguments, out.device)
