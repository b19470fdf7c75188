"""How a convolution is computed: the algorithms, and which of them a convolution's geometry allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# Outputs of one tile along an axis; None: no tiles. Winograd's F(2x2, 3x3) and F(4x4, 3x3) need 4 and 2.25 products per
# output and channel instead of 9. Pairs are dot products of two bfloat16 channels, with weights rounded to bfloat16;
# AMX multiplies matrices of such pairs. TF32 rounds both factors to 10 bits behind the point, for tensor cores.
ALGORITHMS = {"direct": None, "winograd_2x2": 2, "winograd_4x4": 4, "bf16_pairs": None, "bf16_amx": None, "tf32": None}
NEEDS = {
    "winograd_2x2": "a 3x3 kernel, stride 1, one group and zeros around",
    "winograd_4x4": "a 3x3 kernel, stride 1, one group and zeros around",
    "bf16_pairs": "bfloat16 maps and an even number of input channels in a group",
    "bf16_amx": "bfloat16 maps and more than one input channel in a group, or one group",
    "tf32": "float32 maps",
}


def products(algorithm: str, block: Sequence[int], dilation: Sequence[int]) -> float:
    """Products that a 3x3 convolution takes per pixel, input and output channel, in the mean over a block.

    Without tiles 9. Winograd's tiles are cut from the block, m outputs along an axis, `dilation` apart: where the block
    has fewer, the tile takes its (m + 2)^2 products all the same.

    Args:
        block: sides in pixels of the output.
    """
    m = ALGORITHMS[algorithm]
    if m is None:
        return 9.0
    tiles = [sum(min(d, side - i) for i in range(0, side, m * d)) for side, d in zip(block, dilation, strict=True)]
    return (m + 2) ** 2 * math.prod(tiles) / math.prod(block)


def obstacle(
    algorithm: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    groups: int,
    per_group: int,
    dtype: torch.dtype,
    transposed: bool = False,
    padding_mode: str = "zeros",
) -> str | None:
    """Why a convolution cannot be computed by `algorithm`: the first thing that stands against it; None: nothing.

    Args:
        per_group: input channels of a group.
        dtype: of the maps; torch.float64, in which oracles compute, stands for any.
    """
    if algorithm == "direct":
        return None
    if transposed:
        return "it is transposed"
    stored = {"bf16_pairs": torch.bfloat16, "bf16_amx": torch.bfloat16, "tf32": torch.float32}.get(algorithm)
    if stored:
        if dtype not in (stored, torch.float64):
            return f"its maps are {str(dtype).removeprefix('torch.')}"
        fits = {"bf16_pairs": per_group % 2 == 0, "bf16_amx": groups == 1 or per_group > 1}.get(algorithm, True)
        return None if fits else f"its groups have {per_group} input channels"
    if tuple(kernel) != (3, 3):
        return f"its kernel is {kernel[0]}x{kernel[1]}"
    if tuple(stride) != (1, 1):
        return f"its stride is {stride[0]}x{stride[1]}"
    if padding_mode != "zeros":
        return f"its padding is {padding_mode!r}"
    return None if groups == 1 else f"it has {groups} groups"
