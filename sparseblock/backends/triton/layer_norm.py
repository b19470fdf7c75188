"""layer_norm of the triton backend: channel_norm.py."""

from __future__ import annotations

from sparseblock.backends.triton.channel_norm import channel_norm


def layer_norm(x, weight, bias, index, count, block, out, eps, activation, slope, bounds) -> None:
    fused = {"weight": weight, "bias": bias, "activation": activation, "slope": slope, "bounds": bounds}
    channel_norm("layer_norm", x, index, count, block, out, eps=eps, **fused)
