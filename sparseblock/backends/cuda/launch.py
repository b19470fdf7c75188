"""Launching a kernel of csrc/cuda on PyTorch's current stream, or, on CPU tensors, its emulation.

Nothing here waits for the device. A kernel is compiled and loaded by its first launch, which therefore must not be the
one that is captured into a CUDA graph: run once before.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.compile import binding, cubin
from sparseblock.backends.cuda.kernels import SUFFIXES, kernels
from sparseblock.errors import SparseBlockError

_EMULATED_MULTIPROCESSORS = 3  # few, so that groups take work more than once
_ITEMS = 4  # of for_each_of
_MOST_ALONG = 1 << 22  # pixels of a map's row, and channels, so that for_each_of counts in 32 bits
_DEFAULT_SHARED = 48 << 10  # bytes that a kernel may have without asking


def launch(
    kernel: str,
    *,
    work: int,
    arguments: Sequence[ctypes.Structure | ctypes._SimpleCData],
    device: torch.device,
    defines: Sequence[tuple[str, int | str]] = (),
) -> None:
    """Runs `kernel` of kernels.txt.

    Args:
        work: how many groups could have something to do at most; as many run as fit onto the device at once.
        arguments: the parameters of the kernel, by value.
        device: of the tensors that they point to, which the caller keeps alive.
        defines: macros for this shape, with which the kernel is compiled anew. Emulated they do not count: a kernel
            computes the same without.

    Raises:
        SparseBlockError: the kernel does not compile or load, or the device refuses the launch.
    """
    line = kernels()[kernel]
    addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
    if device.type == "cpu":
        grid = max(1, min(work, multiprocessors(device) * line.groups_per_sm))
        problem = getattr(_emulation(), kernel)(grid, line.shared, addresses)
        if problem:
            raise SparseBlockError(problem.decode())
        return
    with torch.cuda.device(device):
        index = torch.cuda.current_device()
        grid = max(1, min(work, multiprocessors(device) * line.groups_per_sm))
        function = _loaded(kernel, tuple((name, str(value)) for name, value in defines), index)
        cu = driver()
        config = cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = line.threads, 1, 1
        config.sharedMemBytes, config.hStream = line.shared, torch.cuda.current_stream().cuda_stream
        if torch.cuda.get_device_capability(index) >= (9, 0):
            config.attrs, config.numAttrs = [_begins_early()], 1
        checked(cu.cuLaunchKernelEx(config, function, ctypes.addressof(addresses), 0))


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU, or of its emulation."""
    if device.type == "cpu":
        return _EMULATED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def kernel_of(stem: str, tensor: torch.Tensor) -> str:
    """The kernel of a family for what `tensor` stores."""
    return f"{stem}_{SUFFIXES[tensor.dtype]}"


def elementwise(
    kernel: str,
    arguments: Sequence[ctypes.Structure],
    index: torch.Tensor,
    count: torch.Tensor,
    block: Sequence[int],
    out: torch.Tensor,
    vectors: bool = True,
) -> None:
    """Runs a kernel that goes through the active blocks by `for_each` of csrc/cuda/maps.h.

    Its parameters are `arguments`, then the blocks, the plane of `out`, and `vector`: whether all planes, and
    `vectors`, let it take 16 bytes of channels at once.
    """
    sides = [min(side, size) for side, size in zip(block, out.shape[2:], strict=True)]
    arguments = [*arguments, native.blocks_of(index, count, block), native.plane_of(out)]
    of_maps(kernel, arguments, index.shape[0], sides, out.device, vectors)


def of_maps(
    kernel: str,
    arguments: Sequence[ctypes.Structure],
    maps: int,
    sides: Sequence[int],
    device: torch.device,
    vectors: bool = True,
) -> None:
    """Runs a kernel that goes through at most `maps` maps of `sides` pixels by `for_each_of` of csrc/cuda/maps.h.

    Its parameters are `arguments`, the last plane of which has the channels of these maps, then `vector`.

    Raises:
        SparseBlockError: a row has too many pixels, or a pixel too many channels.
    """
    planes = [given for given in arguments if isinstance(given, native.Plane)]
    if max(sides[1], planes[-1].c) >= _MOST_ALONG:
        raise SparseBlockError(
            f"the cuda backend takes maps of less than {_MOST_ALONG} pixels in a row and channels, not "
            f"{sides[1]} pixels of {planes[-1].c} channels; split the map, or move the tensors to cpu"
        )
    aligned = all(has_aligned_parameters(given) for given in arguments if isinstance(given, native.Epilogue))
    channels = vector_of(*planes) if vectors and aligned else 1
    pieces = -(-sides[0] * sides[1] * (planes[-1].c // channels) // (kernels()[kernel].threads * _ITEMS))
    launch(kernel, work=maps * pieces, arguments=[*arguments, ctypes.c_int32(channels > 1)], device=device)


def vector_of(*planes: native.Plane) -> int:
    """Elements of 16 bytes if all pixels of these planes begin at multiples of 16 bytes and are such long, else 1."""
    size = _size(planes[0])
    return 16 // size if all(is_aligned(plane) and plane.c * size % 16 == 0 for plane in planes) else 1


def is_aligned(plane: native.Plane) -> bool:
    """Whether all pixels begin at multiples of 16 bytes, their channels side by side."""
    strides = (plane.stride_n if plane.n > 1 else 0, plane.stride_y if plane.h > 1 else 0, plane.stride_x)
    return not (plane.data or 0) % 16 and plane.stride_c == 1 and not any(x * _size(plane) % 16 for x in strides)


def has_aligned_parameters(epilogue: native.Epilogue) -> bool:
    """Whether the parameters of every channel but the slopes begin at a multiple of 16 bytes."""
    return not any((pointer or 0) % 16 for pointer in (epilogue.bias, epilogue.scale, epilogue.shift))


def _size(plane: native.Plane) -> int:
    return 4 if plane.dtype == native.F32 else 2


@functools.cache
def _emulation() -> ctypes.CDLL:
    path = os.environ["SPARSEBLOCK_CUDA_EMULATED"]
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise SparseBlockError(f"SPARSEBLOCK_CUDA_EMULATED is {path!r}, which does not load ({error})") from error
    for name in kernels():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return library


def driver():
    return binding("cuda.bindings.driver")


@functools.cache
def _begins_early():
    """That a kernel may begin before the one before has ended, for which `await_kernels_before` of hardware.h waits."""
    cu = driver()
    attribute = cu.CUlaunchAttribute()
    attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    return attribute


def checked(result: tuple):
    """What a call of the driver returned besides its status."""
    status, *values = result
    if status != driver().CUresult.CUDA_SUCCESS:
        _, text = driver().cuGetErrorString(status)
        raise SparseBlockError(f"the CUDA driver refuses a kernel: {text.decode() if text else status}")
    return values[0] if values else None


def architecture(device: torch.device) -> str:
    """What kernels are compiled for on a GPU: "sm_90a" has what only that one can do.

    Emulated it is what the environment variable SPARSEBLOCK_CUDA_EMULATED_ARCH says, or "sm_80".
    """
    if device.type == "cpu":
        return os.environ.get("SPARSEBLOCK_CUDA_EMULATED_ARCH", "sm_80")
    return _architecture(device)


@functools.cache
def _architecture(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise SparseBlockError(
            f"the cuda backend needs a GPU of compute capability 8.0 or more, {torch.cuda.get_device_name(device)} has "
            f"{major}.{minor}; move the tensors to cpu"
        )
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"


@functools.cache
def _loaded(kernel: str, defines: tuple[tuple[str, str], ...], index: int):
    cu = driver()
    code = cubin(kernels()[kernel], defines, architecture(torch.device("cuda", index)))
    library = checked(cu.cuLibraryLoadData(code, None, None, 0, None, None, 0))
    loaded = checked(cu.cuLibraryGetKernel(library, kernel.encode()))
    shared = kernels()[kernel].shared
    if shared > _DEFAULT_SHARED:
        attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        checked(cu.cuKernelSetAttribute(attribute, shared, loaded, checked(cu.cuDeviceGet(index))))
    return cu.CUfunction(int(loaded))
