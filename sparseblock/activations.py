"""How exact an activation is, and how far it carries an error of its argument: what every tolerance is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

EPS = torch.finfo(torch.float32).eps
TINY = torch.finfo(torch.float32).tiny
FLOOR = TINY / EPS  # where a subnormal factor or result counts as zero, the error is eps of a magnitude of this


@dataclass(frozen=True)
class Bound:
    """Of a float32 activation g that stands for f: |g(v) - f(u)| <= lipschitz |v - u| + eps (relative |f| + absolute).

    And the smallest normal number, TINY, for what becomes subnormal. eps is 2^-23: a correctly rounded value is off by
    half of it.

    Attributes:
        lipschitz: the largest slope of f.
        relative, absolute: in eps. What csrc/cpu/math.h states of its functions, and the roundings after them.
    """

    lipschitz: float = 1.0
    relative: float = 0.0
    absolute: float = 0.0


# Each arithmetic operation rounds by half an eps, exp by 1 eps. Where an exponent 2u was rounded, which moves e^2u
# by 2u times as much, |v| |2u| e^-|2u| <= 0.4 makes an absolute error of that. Below 0 torch's own GELU in float64 is
# exact to |v| 2^-53 only: the last absolute error.
BOUNDS = {
    None: Bound(),
    "relu": Bound(),
    "clamp": Bound(),
    "hardsigmoid": Bound(0.16667, 2.0),
    "hardswish": Bound(1.5, 2.5),
    "sigmoid": Bound(0.25, 2.5),
    "tanh": Bound(1.0, 4.0),
    "silu": Bound(1.0999, 2.5),
    "gelu": Bound(1.1290, 6.0, 1e-6),
    "gelu_tanh": Bound(1.1290, 2.5, 1.0),
    "mish": Bound(1.0885, 6.0),
    "softplus": Bound(1.0, 4.0),
}


def bound(activation: str | None, slope: float | torch.Tensor | None = None) -> Bound:
    """Of the activation of that name, public or a backend's; `slope` as in `ops.conv2d`."""
    name = "clamp" if activation == "relu6" else activation
    if name not in ("leaky_relu", "prelu", "elu"):
        return BOUNDS[name]
    steepest = max(1.0, float(torch.as_tensor(1.0 if slope is None else slope).abs().max()))
    # A product with the slope; expm1 is exact to 2 eps.
    return Bound(steepest, 2.5 if name == "elu" else 0.5)
