"""How a sum over pixels is shared out on a GPU: shares have sums of their own, which are then added in one order."""

from __future__ import annotations

_PARTS = 512  # tiles of shares: as many as keep a GPU busy; they bound what the sums of shares take
_LEAST = 256  # pixels of a share


def shares(tiles: int, pixels: int) -> int:
    """How many for a sum of each of `tiles` over at most `pixels`: of shapes alone, as bits depend on it."""
    return max(1, min(_PARTS // tiles, -(-pixels // _LEAST)))
