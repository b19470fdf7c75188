"""conv2d of the cuda backend: csrc/cuda/conv2d.cu, conv2d_depthwise.cu, or, on Hopper, conv2d_wgmma.cu."""

from __future__ import annotations

from ctypes import c_int32

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import conv2d_wgmma
from sparseblock.backends.cuda.kernels import kernels
from sparseblock.backends.cuda.launch import elementwise, kernel_of, launch, vector_of
from sparseblock.backends.kept import kept
from sparseblock.errors import SparseBlockError

ALGORITHMS = ("direct", "tf32")  # a depthwise convolution, which has no use for tensor cores, is the same by both


def conv2d(
    x, weight, bias, index, count, block, out, stride, padding, dilation, groups,
    activation, slope, bounds, residual, combine, padding_mode, algorithm, scale=None, shift=None,
) -> None:  # fmt: skip
    """The op; `scale` and `shift`, float32 [c], are of what plans fuse into it: after the residual."""
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise SparseBlockError(f"conv2d: algorithm is {algorithm!r}, but the cuda backend has {known} alone")
    conv = native.Conv2d(
        x.shape[1], out.shape[1], groups, *weight.shape[2:], *stride, *padding, *dilation,
        transposed=0, pad_mode=native.PAD_MODES[padding_mode],
    )  # fmt: skip
    fused = {"activation": activation, "slope": slope, "bounds": bounds, "combine": combine}
    fused |= {"scale": scale, "shift": shift}
    run(conv, x, weight, bias, index, count, block, out, residual, fused, algorithm)


def family(conv: native.Conv2d, x: torch.Tensor, algorithm: str, device: torch.device) -> str:
    """How the kernels of kernels.txt are called that compute `conv` on `device` from maps that lie as `x`."""
    if algorithm == "direct" and conv2d_wgmma.can(conv, x, device):
        return "conv2d_wgmma"
    if conv.groups == conv.in_channels > 1:
        return "conv2d_depthwise"
    return "conv2d_tf32" if algorithm == "tf32" else "conv2d"


def run(conv, x, weight, bias, index, count, block, out, residual, fused, algorithm="direct") -> None:
    """`conv`, transposed or not, on the planes of these tensors; its weights are rounded to what they store."""
    epilogue = native.epilogue_of(bias=bias, **fused)
    kernels_of = family(conv, x, algorithm, x.device)
    if kernels_of == "conv2d_wgmma":
        conv2d_wgmma.run(conv, epilogue, x, weight, index, count, block, out, residual)
        return
    depthwise = kernels_of == "conv2d_depthwise"
    packed = kept(
        weight, ("cuda", conv.groups, conv.transposed, x.dtype), lambda: _packed(conv, weight, x.dtype, depthwise)
    )
    conv.packed_weight = packed.data_ptr()
    planes = [native.plane_of(x), native.plane_of(out if residual is None else residual.expand(out.shape))]
    arguments = [conv, epilogue, *planes, c_int32(residual is not None)]
    if depthwise:
        whole = conv.in_channels == conv.out_channels
        elementwise(kernel_of("conv2d_depthwise", out), arguments, index, count, block, out, whole)
    else:
        _tiles(conv, arguments, index, count, block, out, algorithm)


def _packed(conv: native.Conv2d, weight: torch.Tensor, dtype: torch.dtype, depthwise: bool) -> torch.Tensor:
    """[groups, r, s, k / groups, c / groups] as maps are stored; depthwise [r, s, k], rounded alike but float32. In
    memory of its own, which begins at a multiple of 16 bytes where that of the weight need not.
    """
    by_group = weight.detach().unflatten(0, (conv.groups, -1))
    by_group = by_group.permute(0, 3, 4, 2, 1) if conv.transposed else by_group.permute(0, 3, 4, 1, 2)
    if depthwise:
        return by_group.permute(1, 2, 0, 3, 4).to(dtype).float().contiguous()
    return by_group.to(dtype).clone(memory_format=torch.contiguous_format)


def _tiles(conv: native.Conv2d, arguments, index, count, block, out, algorithm: str) -> None:
    """Launches the kernel whose tiles are as wide as a group."""
    in_group, out_group = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    stem = "conv2d" if out_group > 32 else "conv2d_narrow"
    kernel = f"{stem}_tf32" if algorithm == "tf32" else kernel_of(stem, out)
    rows, cols = (int(kernels()[kernel].macros[side]) for side in ("SB_ROWS", "SB_COLS"))
    of_x, of_residual, of_out = arguments[2], arguments[3], native.plane_of(out)
    reads, stores = vector_of(of_x), vector_of(of_residual, of_out)
    flags = (reads > 1 and in_group % reads == 0, stores > 1 and out_group % stores == 0)
    phases = (conv.stride_h, conv.stride_w) if conv.transposed else (1, 1)
    sides = [-(-min(side, size) // by) for side, size, by in zip(block, out.shape[2:], phases, strict=True)]
    tiles = -(-index.shape[0] * sides[0] * sides[1] // rows) * -(-out_group // cols) * conv.groups
    launch(
        kernel,
        work=tiles * phases[0] * phases[1],
        arguments=[*arguments, native.blocks_of(index, count, block), of_out, *map(c_int32, flags)],
        device=out.device,
    )
