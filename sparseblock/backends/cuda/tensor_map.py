"""Tensors as Hopper's copies of boxes take them: csrc/cuda/hopper.h."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int32, c_int64, c_uint64, c_void_p

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import checked, driver, is_aligned
from sparseblock.errors import SparseBlockError


class Encoded(ctypes.Structure):
    """What the driver makes of it."""

    _fields_ = (("words", c_uint64 * 16),)


class Described(ctypes.Structure):
    """The same for the emulation."""

    _fields_ = (
        ("data", c_void_p),
        ("sizes", c_int64 * 4),
        ("strides", c_int64 * 3),
        ("box", c_int32 * 4),
        ("steps", c_int32 * 4),
        ("element", c_int32),
        ("unused", c_int32 * 5),
    )


def can_map(x: torch.Tensor) -> bool:
    """Whether boxes of x [n, c, h, w] can be described: 16 bytes at a time, and no axis expanded.

    The driver documents strides as those of an axis and all within it, so that of an expanded axis, 0, is none.
    """
    expanded = any(count > 1 and stride == 0 for count, stride in zip(x.shape, x.stride(), strict=True))
    return is_aligned(native.plane_of(x)) and not expanded


def tensor_map(
    tensor: torch.Tensor, sizes: Sequence[int], strides: Sequence[int], box: Sequence[int], steps: Sequence[int]
) -> Encoded | Described:
    """Boxes of the memory of `tensor`, float16 or bfloat16.

    Args:
        sizes: of its four axes, neighbours first, elements.
        strides: of all axes but the first, elements; of an axis of size 1 any.
        box: elements that are copied along each axis, 128 bytes of the first.
        steps: from one to the next.
    """
    size = tensor.element_size()
    # An axis of size 1 is not walked along, yet its stride must be a multiple of 16 bytes.
    lengths = [stride * size if count > 1 else 16 for stride, count in zip(strides, sizes[1:], strict=True)]
    if tensor.device.type == "cpu":
        if not all(0 < length < 1 << 40 and length % 16 == 0 for length in lengths) or tensor.data_ptr() % 16:
            raise SparseBlockError(
                f"emulated: boxes of memory at {tensor.data_ptr():#x} with strides of {lengths} bytes; the CUDA driver "
                "takes multiples of 16, and strides above 0 and below 2^40"
            )
        return Described(
            tensor.data_ptr(), (c_int64 * 4)(*sizes), (c_int64 * 3)(*lengths), (c_int32 * 4)(*box),
            (c_int32 * 4)(*steps), size,
        )  # fmt: skip
    cu = driver()
    types = {
        torch.float16: cu.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        torch.bfloat16: cu.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    }
    wide, narrow = cu.cuuint64_t, cu.cuuint32_t
    encoded = checked(
        cu.cuTensorMapEncodeTiled(
            types[tensor.dtype],
            4,
            tensor.data_ptr(),
            [wide(count) for count in sizes],
            [wide(length) for length in lengths],
            [narrow(count * step) for count, step in zip(box, steps, strict=True)],
            [narrow(step) for step in steps],
            cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            cu.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            cu.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return Encoded((c_uint64 * 16)(*map(int, encoded.opaque)))
