"""What every reference op shares: the contract itself, and the activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def store(dense: torch.Tensor, index: torch.Tensor, count: torch.Tensor, block: list[int], out: torch.Tensor) -> None:
    """out = where(active, dense, out)."""
    active = torch.zeros_like(out, dtype=torch.bool)
    height, width = block
    for image, y, x in index[: int(count)].tolist():
        active[image, :, y * height : (y + 1) * height, x * width : (x + 1) * width] = True
    out.copy_(torch.where(active, dense.to(out.dtype), out))


def widened(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """The same values in what is computed in: bfloat16 and float16 as float32, so that only `store` rounds to them."""
    return [None if x is None else x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors]


def in_order(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The same in plain memory of their own: where an axis has one element oneDNN, which torch convolves with, takes
    its stride, which may be anything, for a layout, and reads what lies elsewhere.
    """
    return [x.clone(memory_format=torch.contiguous_format) for x in tensors]


def combined(value: torch.Tensor, residual: torch.Tensor | None, combine: str) -> torch.Tensor:
    """The sum or product with the residual, if there is one."""
    if residual is None:
        return value
    return value + residual if combine == "add" else value * residual


def activate(
    value: torch.Tensor, activation: str | None, slope: torch.Tensor | None, bounds: Sequence[float] | None
) -> torch.Tensor:
    """The activation of that name; PReLU and ELU with a slope per channel."""
    match activation:
        case None:
            return value
        case "prelu":
            return F.prelu(value, slope.to(value.dtype))
        case "elu":
            return torch.where(value > 0, value, slope.to(value.dtype)[:, None, None] * torch.expm1(value.clamp(max=0)))
        case "clamp":
            return value.clamp(*bounds)
        case "gelu_tanh":
            return F.gelu(value, approximate="tanh")
    return getattr(F, activation)(value)
