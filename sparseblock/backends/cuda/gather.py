"""gather of the cuda backend: csrc/cuda/gather.cu."""

from __future__ import annotations

from ctypes import c_int32

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import kernel_of, of_maps


def gather(x, index, count, block, out, halo) -> None:
    blocks = native.blocks_of(index, count, block)
    arguments = [native.plane_of(x), c_int32(halo), blocks, native.plane_of(out)]
    of_maps(kernel_of("gather", out), arguments, len(out), out.shape[2:], out.device)
