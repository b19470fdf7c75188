"""activation((value + bias (+ or *) residual) * scale + shift): csrc/cpu/epilogue.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from sparseblock.backends.triton import math
from sparseblock.backends.triton.values import widened


def activation_of(
    activation: str | None, slope: torch.Tensor | None, bounds: Sequence[float] | None
) -> tuple[tuple[torch.Tensor | None, float, float], dict[str, str | None]]:
    """The parameters `slope`, `low` and `high` of `activate`, and its constant."""
    return (vector(slope), *(bounds or (0.0, 0.0))), {"ACTIVATION": activation}


def vector(given: torch.Tensor | None) -> torch.Tensor | None:
    """One value per channel, as kernels take it."""
    return None if given is None else given.contiguous()


@triton.jit
def of_channels(given, c, inside):
    """What a vector has for channels `c`."""
    return widened(tl.load(given + c, mask=inside, other=0.0))


@triton.jit
def hard_sigmoid(v):
    return math.at_most(6.0, math.at_least(0.0, v + 3.0)) * (1.0 / 6.0)


@triton.jit
def activate(v, c, inside, slope, low, high, ACTIVATION: tl.constexpr):
    """Of float32 `v` of channels `c`, of which `inside` are some."""
    if ACTIVATION == "relu":
        v = math.at_least(0.0, v)
    elif ACTIVATION == "clamp":
        v = math.at_most(high, math.at_least(low, v))
    elif ACTIVATION == "prelu":
        v = tl.where(v > 0.0, v, v * of_channels(slope, c, inside))
    elif ACTIVATION == "elu":
        v = tl.where(v > 0.0, v, of_channels(slope, c, inside) * math.expm1(math.at_most(0.0, v)))
    elif ACTIVATION == "sigmoid":
        v = math.sigmoid(v, 1.0)
    elif ACTIVATION == "tanh":
        v = math.tanh(v)
    elif ACTIVATION == "silu":
        v = math.sigmoid(v, v)
    elif ACTIVATION == "gelu":
        tail = math.normal_tail(tl.abs(v))
        v = v * tl.where(v > 0.0, 1.0 - tail, tail)
    elif ACTIVATION == "gelu_tanh":
        v = math.sigmoid(v * (v * v * 0.0713548163 + 1.5957691216), v)
    elif ACTIVATION == "mish":
        e = math.exp(math.at_most(20.0, v), 0.0)
        n = e * (e + 2.0)
        v = v * tl.div_rn(n, n + 2.0)
    elif ACTIVATION == "softplus":
        v = math.at_least(0.0, v) + math.log1p(math.exp(-tl.abs(v), 0.0))
    elif ACTIVATION == "hardsigmoid":
        v = hard_sigmoid(v)
    elif ACTIVATION == "hardswish":
        v = v * hard_sigmoid(v)
    else:
        tl.static_assert(ACTIVATION is None, "an activation that the triton backend lacks")
    return v
