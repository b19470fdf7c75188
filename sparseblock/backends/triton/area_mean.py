"""area_mean of the triton backend: the cuda backend's, which is operators of torch."""

from __future__ import annotations

from sparseblock.backends.cuda.area_mean import area_mean

__all__ = ["area_mean"]
