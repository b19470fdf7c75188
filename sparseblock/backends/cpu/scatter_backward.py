"""Gradient of scatter, cpu backend: the gradient's active blocks, packed; zero past the count."""

from __future__ import annotations


def scatter_backward(call, grad, packed, needs):
    rows = len(call.index)
    full = packed.new_zeros((rows, *packed.shape[1:]))
    full[: len(packed)] = packed
    return {"packed": full}
