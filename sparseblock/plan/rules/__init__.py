"""Which ATen operators have a block-sparse form, and what they become. One rule per operator, whatever its overload.

A rule gets the lowering and the operator's arguments by name, and returns what stands for the result: a `Ref`, or a
tuple of them. Where a rule does not cover its arguments it raises `Unsupported` with the reason that the report will
give. One file per kind of operator; importing it puts its rules into the table.
"""

from __future__ import annotations

from sparseblock.plan.rules import (  # noqa: F401
    activation,
    arithmetic,
    channels,
    convolution,
    identity,
    padding,
    pooling,
    resize,
    shuffle,
    statistics,
)
from sparseblock.plan.rules._base import RULES, Unsupported

# The operators that do to a map [1, c, 1, 1] what they do to a vector [1, c].
VECTOR_RULES = frozenset(
    "linear batch_norm dropout contiguous clone alias detach view reshape flatten squeeze unsqueeze relu relu6 sigmoid "
    "tanh silu mish hardsigmoid hardswish gelu hardtanh clamp leaky_relu elu".split()
)

__all__ = ["RULES", "VECTOR_RULES", "Unsupported"]
