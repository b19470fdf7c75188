"""The element-wise ops of the cuda backend all are csrc/cuda/pointwise.cu with another epilogue."""

from __future__ import annotations

from ctypes import c_int32

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import elementwise, kernel_of


def run(epilogue, x, residual, index, count, block, out) -> None:
    """out = epilogue(x, residual) on the planes of these tensors; the residual is broadcast to the shape of `out`."""
    plane = native.plane_of(x)
    second = plane if residual is None else native.plane_of(residual.expand(out.shape))
    arguments = [epilogue, plane, second, c_int32(residual is not None)]
    elementwise(kernel_of("pointwise", out), arguments, index, count, block, out)
