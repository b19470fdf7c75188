"""conv_transpose2d of the cpu backend: csrc/cpu/conv2d.cpp, transposed."""

from __future__ import annotations

from sparseblock.backends.cpu import conv2d, native


def conv_transpose2d(
    x, weight, bias, index, count, block, out,
    stride, padding, output_padding, dilation, groups, activation, slope, bounds, residual, combine,
) -> None:  # fmt: skip
    conv = native.Conv2d(
        x.shape[1], out.shape[1], groups, *weight.shape[2:], *stride, *padding, *dilation, transposed=1
    )
    fused = {"activation": activation, "slope": slope, "bounds": bounds, "combine": combine}
    conv2d.run(conv, x, weight, bias, index, count, block, out, residual, fused)
