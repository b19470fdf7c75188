"""scatter of the cuda backend: csrc/cuda/scatter.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import kernel_of, of_maps


def scatter(packed, index, count, block, out) -> None:
    arguments = [native.plane_of(packed), native.blocks_of(index, count, block), native.plane_of(out)]
    of_maps(kernel_of("scatter", out), arguments, len(packed), packed.shape[2:], out.device)
