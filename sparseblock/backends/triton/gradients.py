"""The triton backend has no gradients."""

from __future__ import annotations

OPS: tuple[str, ...] = ()
DTYPES: tuple = ()
