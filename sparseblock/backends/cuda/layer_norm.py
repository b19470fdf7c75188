"""layer_norm of the cuda backend: csrc/cuda/channel_norm.cu."""

from __future__ import annotations

from sparseblock.backends.cuda.channel_norm import channel_norm


def layer_norm(x, weight, bias, index, count, block, out, eps, activation, slope, bounds) -> None:
    fused = {"scale": weight, "shift": bias, "activation": activation, "slope": slope, "bounds": bounds}
    channel_norm("layer_norm", x, index, count, block, out, eps, **fused)
