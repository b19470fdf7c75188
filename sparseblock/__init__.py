"""Block-sparse convolutional networks on video: recompute only the blocks of a frame that matter, keep the rest."""

from __future__ import annotations

import importlib

from sparseblock import ops, profiling
from sparseblock.backends import backend
from sparseblock.blocks import BlockSet
from sparseblock.cache import FeatureCache
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid

__version__ = "0.1.0"

__all__ = [
    "BlockGrid",
    "BlockSet",
    "CompiledState",
    "DevicePlan",
    "ExactPlan",
    "FeatureCache",
    "Plan",
    "SparseBlockError",
    "active",
    "backend",
    "calibrate",
    "compile",
    "explain",
    "ops",
    "profiling",
    "testing",
    "verify",
]

# Loaded on first use: the planner brings in torch.export, testing needs hypothesis.
_PLANNER = ("CompiledState", "DevicePlan", "ExactPlan", "Plan", "active", "calibrate", "compile", "explain", "verify")
_LAZY = dict.fromkeys(_PLANNER, "sparseblock.plan") | {"testing": None}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'sparseblock' has no attribute {name!r}")
    module = _LAZY[name]
    if module is None:
        return importlib.import_module(f"sparseblock.{name}")
    return getattr(importlib.import_module(module), name)
