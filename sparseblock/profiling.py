"""NVTX ranges of the domain "sparseblock" around every op and every layer of a plan, for Nsight Systems and its like.

Nothing is to be switched on: a tool that listens (`nsys profile --trace=nvtx python app.py`) is loaded by NVTX when
a process first asks for a domain. Where none listens, a range costs the question whether one does. `docs/profiling.md`
shows how to read what comes.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

DOMAIN = "sparseblock"
_INJECTION = "NVTX_INJECTION64_PATH"  # names the library of the tool that started this process
_SILENT = nullcontext()


@functools.cache
def _domain() -> Any | None:
    """The domain of the nvtx package, or None where no tool listens."""
    try:
        import nvtx
    except ImportError:
        if os.environ.get(_INJECTION):
            warnings.warn(f"{_INJECTION} is set, but no ranges are sent to it: pip install nvtx", stacklevel=2)
        return None
    domain = nvtx.get_domain(DOMAIN)
    return None if domain.get_event_attributes("") is None else domain  # one that nobody listens to gives none


def listening() -> bool:
    """Whether a tool receives ranges in this process."""
    return _domain() is not None


def span(name: str, shape: Sequence[int] | None = None, capacity: int | None = None) -> AbstractContextManager[None]:
    """A range of this thread around the code of a `with` block; nested ones lie within.

    Args:
        name: of what runs.
        shape: of what it writes, [n, c, h, w].
        capacity: how many blocks its list has room for. The list's count, which may lie on a device, is not read.

    Example:
        >>> with sparseblock.profiling.span("decode"):
        ...     frame = torch.rand(1, 3, 64, 96)
    """
    domain = _domain()
    return _SILENT if domain is None else _range(domain, name, shape, capacity)


@contextmanager
def _range(domain: Any, name: str, shape: Sequence[int] | None, capacity: int | None):
    of_shape = "" if shape is None else f" [{', '.join(map(str, shape))}]"
    of_blocks = "" if capacity is None else f", up to {capacity} blocks"
    domain.push_range(message=name + of_shape + of_blocks)
    try:
        yield
    finally:
        domain.pop_range()
