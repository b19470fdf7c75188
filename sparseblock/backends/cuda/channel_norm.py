"""softmax, normalize and layer_norm of the cuda backend: csrc/cuda/channel_norm.cu."""

from __future__ import annotations

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import WARP, kernels
from sparseblock.backends.cuda.launch import kernel_of, launch


def channel_norm(kind, x, index, count, block, out, eps=0.0, **epilogue) -> None:
    kernel, fused = kernel_of("channel_norm", out), native.epilogue_of(**epilogue)
    norm = native.ChannelNorm(native.CHANNEL_NORMS[kind], eps)
    planes = native.plane_of(x), native.blocks_of(index, count, block), native.plane_of(out)
    height, width = (min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    warps = kernels()[kernel].threads // WARP
    work = -(-index.shape[0] * height * width // warps)
    launch(kernel, work=work, arguments=[norm, fused, *planes], device=out.device)
