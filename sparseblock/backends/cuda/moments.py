"""What kernels that sum over cells (csrc/cuda/moments.h) have in common."""

from __future__ import annotations

from sparseblock.backends.cuda.kernels import WARP
from sparseblock.backends.cuda.launch import launch


def launch_sums(kernel: str, sums: int, channels: int, arguments, device) -> None:
    """Runs a kernel that makes `sums` sums of `channels` at most, a group WARP channels of one."""
    launch(
        kernel,
        work=sums * -(-channels // WARP),
        arguments=arguments,
        device=device,
    )
