"""sample of the triton backend: operators of torch."""

from __future__ import annotations


def sample(x, ys, xs, out) -> None:
    out.copy_(x[:, :, ys[:, None], xs])
