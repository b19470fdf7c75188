"""Poison: tensors that lie in a larger one full of NaN, so that a read or a write where there should be none shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

NAN = float("nan")


@dataclass(frozen=True)
class Guard:
    """What lies around a tensor in its buffer: always an image before and after, and

    Attributes:
        pixels: on each side of an image; 0: rows follow each other without a gap.
        channels: before and after those of a pixel; 0: pixels follow each other without a gap.
    """

    pixels: int = 2
    channels: int = 3


@dataclass(frozen=True)
class Guarded:
    """`tensor` [n, c, h, w] is a channels-last view into `buffer` [n + 2, h + 2p, w + 2p, c + 2q]."""

    tensor: torch.Tensor
    buffer: torch.Tensor


def guarded(values: torch.Tensor, guard: Guard, fill: float = NAN) -> Guarded:
    """`values` [n, c, h, w] inside of a buffer that holds `fill` everywhere else (of the dtype of `values`)."""
    n, c, h, w = values.shape
    p, q = guard.pixels, guard.channels
    buffer = torch.full((n + 2, h + 2 * p, w + 2 * p, c + 2 * q), fill, dtype=values.dtype)
    tensor = buffer[1 : n + 1, p : p + h, p : p + w, q : q + c].permute(0, 3, 1, 2)
    tensor.copy_(values)
    return Guarded(tensor, buffer)


def poisoned(values: torch.Tensor, readable: torch.Tensor) -> torch.Tensor:
    """`values` with NaN where `readable`, bool broadcast to it, is false."""
    return torch.where(readable, values, NAN)
