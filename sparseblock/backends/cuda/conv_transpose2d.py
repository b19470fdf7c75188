"""conv_transpose2d of the cuda backend: csrc/cuda/conv2d.cu and csrc/cuda/conv2d_depthwise.cu, transposed."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import conv2d


def conv_transpose2d(
    x, weight, bias, index, count, block, out,
    stride, padding, output_padding, dilation, groups, activation, slope, bounds, residual, combine,
) -> None:  # fmt: skip
    conv = native.Conv2d(
        x.shape[1], out.shape[1], groups, *weight.shape[2:], *stride, *padding, *dilation, transposed=1
    )
    fused = {"activation": activation, "slope": slope, "bounds": bounds, "combine": combine}
    conv2d.run(conv, x, weight, bias, index, count, block, out, residual, fused)
