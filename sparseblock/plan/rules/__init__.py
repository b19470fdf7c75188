"""Which ATen operators have a block-sparse form, and what they become. One rule per operator, whatever its overload.

A rule gets the lowering and the operator's arguments by name, and returns what stands for the result: a `Ref`, or a
tuple of them. Where a rule does not cover its arguments it raises `Unsupported` with the reason that the report will
give. One file per kind of operator; importing it puts its rules into the table.
"""

from __future__ import annotations

from sparseblock.plan.rules import (  # noqa: F401
    activation,
    arithmetic,
    channel_norms,
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

_ALIKE = (  # whatever the shape is
    "dropout contiguous clone alias detach relu relu6 sigmoid tanh silu mish hardsigmoid hardswish gelu hardtanh clamp "
    "leaky_relu elu"
)
# The operators that do to a map [1, c, 1, 1] what they do to a vector [1, c].
VECTOR_RULES = frozenset(
    f"{_ALIKE} linear batch_norm layer_norm softmax view reshape flatten squeeze unsqueeze".split()
)
# And those whose rules know what they do to a map [1, c, h, w] that torch has as [1, h, w, c].
CHANNELS_LAST_RULES = frozenset(
    f"{_ALIKE} linear layer_norm softmax add sub mul div neg "
    "cat concat slice narrow chunk split split_with_sizes".split()
)

__all__ = ["CHANNELS_LAST_RULES", "RULES", "VECTOR_RULES", "Unsupported"]
