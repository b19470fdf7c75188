"""sample of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.sample import sample

__all__ = ["sample"]
