"""copy_where of the cuda backend: csrc/cuda/copy_where.cu."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_void_p

from sparseblock.backends.cuda.kernels import kernels
from sparseblock.backends.cuda.launch import launch

_MOST = 24  # copies of a launch
_BYTES = 16  # that a thread copies at a time


class Copies(ctypes.Structure):
    """sb::Copies of csrc/cuda/copy_where.cu."""

    _fields_ = (("to", c_void_p * _MOST), ("given", c_void_p * _MOST), ("bytes", c_int64 * _MOST))


def copy_where(condition, into, given) -> None:
    for begin in range(0, len(into), _MOST):
        part = slice(begin, begin + _MOST)
        copies, sizes = Copies(), [x.nbytes for x in given[part]]
        copies.to[: len(sizes)] = [x.data_ptr() for x in into[part]]
        copies.given[: len(sizes)] = [x.data_ptr() for x in given[part]]
        copies.bytes[: len(sizes)] = sizes
        work = -(-max(sizes) // (_BYTES * kernels()["copy_where"].threads))
        arguments = [c_void_p(condition.data_ptr()), copies, c_int32(len(sizes))]
        launch("copy_where", work=work, arguments=arguments, device=into[0].device)
