"""interpolate: nearest or bilinear resize, on active blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock.blocks import BlockSet
from sparseblock.errors import SparseBlockError
from sparseblock.grid import interpolate_extent
from sparseblock.ops import _check
from sparseblock.ops._register import register

# `method` and not `mode`, a name that torch's own tracing functions take.
_interpolate = register(
    "interpolate(Tensor x, Tensor index, Tensor count, int[2] block, Tensor(a!) out, str method, bool align_corners, "
    "float[]? scale_factor) -> ()"
)


def interpolate(
    x: torch.Tensor,
    blocks: BlockSet,
    out: torch.Tensor,
    *,
    mode: str = "nearest",
    align_corners: bool = False,
    scale_factor: float | Sequence[float] | None = None,
) -> torch.Tensor:
    """out = torch.nn.functional.interpolate(x) in the active blocks, across block edges; the rest keeps its bits.

    Args:
        x: [n, c, h, w], channels-last.
        blocks: grid over `out`; a block is `blocks.block` pixels of `out`.
        out: [n, c, oh, ow], channels-last; written in place, shares no memory with `x`. Its size is the `size` of
            PyTorch's function.
        mode: "nearest" (bit for bit) or "bilinear".
        align_corners: bilinear only, as in PyTorch.
        scale_factor: None, or PyTorch's `scale_factor`, one number or (vertical, horizontal): then oh must be
            floor(h * scale_factor), and source positions are those of the factor and not of the sizes.

    Returns:
        `out`.

    Raises:
        SparseBlockError: shapes, dtypes, devices, layouts or block grid
            do not fit; memory is shared; an unknown mode; or `out` is a leaf that requires grad.

    Example:
        >>> x = torch.randn(1, 8, 15, 20).contiguous(memory_format=torch.channels_last)
        >>> out = torch.zeros(1, 8, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> blocks = BlockSet.all(n=1, rows=2, cols=3, block=16)
        >>> sparseblock.ops.interpolate(x, blocks, out, mode="bilinear").shape
        torch.Size([1, 8, 30, 40])
    """
    op = "interpolate"
    _check.planes(op, out, x=x)
    _check.tensors(op, out, x=x)
    if mode not in ("nearest", "bilinear"):
        raise SparseBlockError(f"{op}: mode is {mode!r}; it must be 'nearest' or 'bilinear'")
    _check.flag(op, "align_corners", align_corners)
    if align_corners and mode == "nearest":
        raise SparseBlockError(f"{op}: align_corners is set with mode 'nearest'; only 'bilinear' knows it")
    size = tuple(out.shape[2:])
    if scale_factor is not None:
        factors = (scale_factor,) * 2 if isinstance(scale_factor, (int, float)) else scale_factor
        if not _is_scale(factors):
            raise SparseBlockError(
                f"{op}: scale_factor is {_check.shown(scale_factor)}; "
                "it must be one or two positive numbers below 2**31"
            )
        scale_factor = [float(factor) for factor in factors]
        size = tuple(interpolate_extent(*axis) for axis in zip(x.shape[2:], scale_factor, strict=True))
    _check.out_shape(op, out, (*x.shape[:2], *size), x=x)
    _check.blocks(op, blocks, out)
    _check.apart(op, out, x=x)
    _interpolate(x, blocks.index, blocks.count, blocks.block, out, mode, align_corners, scale_factor)
    return out


def _is_scale(factors: object) -> bool:
    pair = isinstance(factors, Sequence) and len(factors) == 2
    return pair and all(0 < _check.number(factor) < _check.LIMIT for factor in factors)
