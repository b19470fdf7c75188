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
    statistics,
)
from sparseblock.plan.rules._base import RULES, Unsupported

__all__ = ["RULES", "Unsupported"]
