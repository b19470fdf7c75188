"""conv_transpose2d of the triton backend: conv2d.py, transposed."""

from __future__ import annotations

from sparseblock.backends.triton import conv2d


def conv_transpose2d(
    x, weight, bias, index, count, block, out, stride, padding, output_padding, dilation, groups,
    activation, slope, bounds, residual, combine,
) -> None:  # fmt: skip
    sides = {"STRIDE": stride, "PAD": padding, "DILATION": dilation}
    fused = {"activation": activation, "slope": slope, "bounds": bounds, "residual": residual, "combine": combine}
    conv2d.run(sides, "zeros", True, x, weight, bias, index, count, block, out, groups, **fused)
