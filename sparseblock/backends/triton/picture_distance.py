"""picture_distance of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.picture_distance import picture_distance

__all__ = ["picture_distance"]
