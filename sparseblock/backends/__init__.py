"""Which backend computes an op: `reference`, the oracle, or native kernels, `cpu` and `cuda`.

The environment variable SPARSEBLOCK_BACKEND, or `sparseblock.backend(name)` for a stretch of code, forces one; else the
device of the tensors decides. A forced backend runs, or the op raises: there is no silent fallback.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from sparseblock.errors import SparseBlockError

# What each backend takes as feature maps. Halves are how values are stored: both compute in float32 and round once.
_STORED = (torch.float32, torch.bfloat16, torch.float16)
DTYPES = {"cpu": _STORED, "cuda": _STORED, "reference": (*_STORED, torch.float64)}
_DEVICES = {"cpu": ("cpu",), "cuda": ("cuda",), "reference": None}
_OF_DEVICE = {"cpu": "cpu", "cuda": "cuda"}

_forced: ContextVar[str | None] = ContextVar("sparseblock_backend", default=None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Lets `name`, "reference", "cpu" or "cuda", compute every op inside of a `with` block (of this thread).

    Raises:
        SparseBlockError: there is no such backend.

    Example:
        >>> with sparseblock.backend("reference"):
        ...     sparseblock.ops.add(x, y, blocks, out)
    """
    token = _forced.set(_known(name))
    try:
        yield
    finally:
        _forced.reset(token)


def selected(device: torch.device) -> str:
    """The name of the backend that computes on tensors of `device` now.

    Raises:
        SparseBlockError: SPARSEBLOCK_BACKEND names no backend, or no backend, or not the forced one, computes there.
    """
    name = _forced.get() or os.environ.get("SPARSEBLOCK_BACKEND")
    if not name:
        name = _OF_DEVICE.get(device.type)
        if name is None:
            raise SparseBlockError(
                f"no backend is the default on {device}; "
                "move the tensors to cpu, or use sparseblock.backend('reference')"
            )
    devices = _DEVICES[_known(name)]
    if devices is not None and device.type not in devices and not (name == "cuda" and _emulates_cuda(device)):
        raise SparseBlockError(f"the {name} backend does not compute on {device}; move the tensors to {devices[0]}")
    return name


@functools.cache
def implementation(name: str, op: str) -> Callable[..., None]:
    """The function `op` of backend `name`; its arguments are those of the op's schema.

    Raises:
        SparseBlockError: the backend lacks the op.
    """
    if not has(name, op):
        raise SparseBlockError(
            f"{op}: the {name} backend does not have it; use another, as sparseblock.backend('reference')"
        )
    return getattr(importlib.import_module(f"sparseblock.backends.{name}.{op}"), op)


def has(name: str, op: str) -> bool:
    """Whether backend `name` has `op`."""
    return importlib.util.find_spec(f"sparseblock.backends.{name}.{op}") is not None


def _emulates_cuda(device: torch.device) -> bool:
    """Whether the kernels of the cuda backend run on `device` without a GPU, for tests."""
    return device.type == "cpu" and bool(os.environ.get("SPARSEBLOCK_CUDA_EMULATED"))


def _known(name: str) -> str:
    if not isinstance(name, str) or name not in DTYPES:
        raise SparseBlockError(f"there is no backend {name!r}; the backends are {', '.join(sorted(DTYPES))}")
    return name
