"""sample of the cuda backend: csrc/cuda/sample.cu."""

from __future__ import annotations

from ctypes import c_int32, c_void_p

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import kernels
from sparseblock.backends.cuda.launch import kernel_of, launch


def sample(x, ys, xs, out) -> None:
    lists = [argument for i in (ys, xs) for argument in (c_void_p(i.data_ptr()), c_int32(len(i)))]
    kernel = kernel_of("sample", x)
    arguments = [native.plane_of(x), *lists, c_void_p(out.data_ptr())]
    launch(kernel, work=-(-out.numel() // kernels()[kernel].threads), arguments=arguments, device=x.device)
