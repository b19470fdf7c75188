"""Which backend computes an op: `reference`, the oracle, or kernels, `cpu`, `cuda` and `triton`.

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

# What each backend takes as feature maps. Halves are how values are stored: kernels compute in float32 and round once.
_STORED = (torch.float32, torch.bfloat16, torch.float16)
DTYPES = {"cpu": _STORED, "cuda": _STORED, "reference": (*_STORED, torch.float64), "triton": _STORED}
_DEVICES = {"cpu": ("cpu",), "cuda": ("cuda",), "reference": None, "triton": ("cuda", "xpu")}
# torch calls AMD's GPUs "cuda" too.
_OF_DEVICE = {"cpu": "cpu", "cuda": "triton" if torch.version.hip else "cuda", "xpu": "triton"}
# What lets a GPU's backend compute on CPU tensors, for tests: its kernels emulated, or interpreted.
_ON_THE_HOST = {"cuda": "SPARSEBLOCK_CUDA_EMULATED", "triton": "TRITON_INTERPRET"}

_forced: ContextVar[str | None] = ContextVar("sparseblock_backend", default=None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Lets `name`, "reference", "cpu", "cuda" or "triton", compute every op inside of a `with` block (of this thread).

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
        SparseBlockError: SPARSEBLOCK_BACKEND names no backend, or no backend, or not the forced one, computes there; or
            it lacks Triton.
    """
    name = _forced.get() or _of_environment()
    if not name:
        name = _OF_DEVICE.get(device.type)
        if name is None:
            raise SparseBlockError(
                f"no backend is the default on {device}; "
                "move the tensors to cpu, or use sparseblock.backend('reference')"
            )
    devices = _DEVICES[name]
    if devices is not None and device.type not in devices and not _on_the_host(name, device):
        raise SparseBlockError(f"the {name} backend does not compute on {device}; move the tensors to {devices[0]}")
    if name == "triton" and not _has_triton():
        raise SparseBlockError("the triton backend needs Triton: pip install 'sparseblock[triton]'")
    return name


def device_that_is_there(what: str, device: torch.device | str) -> torch.device:
    """`device` as torch knows it, with its number.

    Raises:
        SparseBlockError: torch makes no tensors there.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:  # the last of a torch that was built without the device
        raise SparseBlockError(
            f"{what}: device is {device!r}, where torch makes no tensors ({str(error).splitlines()[0]}); "
            "it must be one of this machine, as 'cpu'"
        ) from None


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


def _on_the_host(name: str, device: torch.device) -> bool:
    """Whether the kernels of backend `name` run on `device` without a GPU, for tests."""
    return device.type == "cpu" and os.environ.get(_ON_THE_HOST.get(name, ""), "0") not in ("", "0")


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _of_environment() -> str | None:
    name = os.environ.get("SPARSEBLOCK_BACKEND")
    try:
        return _known(name) if name else None
    except SparseBlockError as error:
        raise SparseBlockError(f"SPARSEBLOCK_BACKEND: {error}") from None


def _known(name: str) -> str:
    if not isinstance(name, str) or name not in DTYPES:
        raise SparseBlockError(f"there is no backend {name!r}; the backends are {', '.join(sorted(DTYPES))}")
    return name
