"""How a convolution is computed: the algorithms, and which of them a convolution's geometry allows."""

from __future__ import annotations

from collections.abc import Sequence

# Outputs of one tile along an axis; None: no tiles. Winograd's F(2x2, 3x3) and F(4x4, 3x3) need 4 and 2.25 products per
# output and channel instead of 9.
ALGORITHMS = {"direct": None, "winograd_2x2": 2, "winograd_4x4": 4}


def obstacle(
    algorithm: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool = False,
    padding_mode: str = "zeros",
) -> str | None:
    """Why a convolution cannot be computed by `algorithm`: the first thing that stands against it; None: nothing."""
    if algorithm == "direct":
        return None
    if transposed:
        return "it is transposed"
    if tuple(kernel) != (3, 3):
        return f"its kernel is {kernel[0]}x{kernel[1]}"
    for name, sides in (("stride", stride), ("dilation", dilation)):
        if tuple(sides) != (1, 1):
            return f"its {name} is {sides[0]}x{sides[1]}"
    if padding_mode != "zeros":
        return f"its padding is {padding_mode!r}"
    return None if groups == 1 else f"it has {groups} groups"
