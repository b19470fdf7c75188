"""policy_logits of the cuda backend: csrc/cuda/policy_conv2d.cu and policy_logits.cu."""

from __future__ import annotations

from ctypes import c_float, c_int32, c_void_p

import torch

from sparseblock.backends.cuda.kernels import WARP, kernels
from sparseblock.backends.cuda.launch import launch
from sparseblock.errors import SparseBlockError

TAPS = 16  # of a convolution


def policy_logits(parameters, pixels, summary, widths, bound) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The second result: what every convolution wrote, [y, x, k]."""
    device, (summaries, rows, cols) = parameters.device, summary.shape
    x, maps, used = pixels, [], 0
    for k in widths:
        (height, width, c), side = x.shape, x.shape[0] // rows // 2
        _check_fits(k, side)
        weight, bias = parameters[used:], parameters[used + k * c * TAPS :]
        out = torch.empty(height // 2, width // 2, k, device=device)
        pointers = (c_void_p(tensor.data_ptr()) for tensor in (x, weight, bias, out))
        sizes = map(c_int32, (*out.shape[:2], c, k, side))
        launch("policy_conv2d", work=rows * cols, arguments=[*pointers, *sizes], device=device)
        used += k * (c * TAPS + 1)
        x, maps = out, [*maps, out]
    logits = torch.empty(rows, cols, device=device)
    read, written = (x, summary, parameters[used:]), logits
    pointers = (c_void_p(tensor.data_ptr()) for tensor in read)
    arguments = [*pointers, c_float(bound), c_void_p(written.data_ptr())]
    arguments += [c_int32(rows * cols), c_int32(x.shape[2]), c_int32(summaries)]
    warps = kernels()["policy_logits"].threads // WARP
    launch("policy_logits", work=-(-rows * cols // warps), arguments=arguments, device=device)
    return logits, maps


def _check_fits(k: int, side: int) -> None:
    """One input channel of a tile, and its weights, lie in shared memory."""
    most = (kernels()["policy_conv2d"].shared // 4 - (2 * side + 2) ** 2) // (TAPS + 1)
    if k > most:
        raise SparseBlockError(f"policy_logits: the cuda backend has no room for {k} channels; {most} is the most")
