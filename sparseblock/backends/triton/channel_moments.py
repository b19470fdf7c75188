"""channel_moments of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.channel_moments import channel_moments

__all__ = ["channel_moments"]
