"""Where values that share memory in turn lie in it: offsets in one piece of memory, by lifetime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a line of the cache, and the widest vector


@dataclass(frozen=True)
class Span:
    """Memory that is needed for a time.

    Attributes:
        size: bytes.
        first, last: when it is first written and last read; both moments are its own.
    """

    size: int
    first: int
    last: int


def assign_offsets(spans: Sequence[Span]) -> list[int]:
    """The offset in bytes of every span; spans that live at the same time never overlap.

    The largest first, each into the smallest gap that holds it among those that live when it does, as is usual
    (Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, 2020: "greedy by size").
    """
    offsets = [0] * len(spans)
    placed: list[int] = []
    for i in sorted(range(len(spans)), key=lambda i: (-spans[i].size, spans[i].first)):
        size = _aligned(spans[i].size)
        alive = sorted(
            (offsets[j], offsets[j] + _aligned(spans[j].size))
            for j in placed
            if spans[j].first <= spans[i].last and spans[i].first <= spans[j].last
        )
        top, best, best_gap = 0, None, None
        for begin, end in alive:
            gap = begin - top
            if gap >= size and (best_gap is None or gap < best_gap):
                best, best_gap = top, gap
            top = max(top, end)
        offsets[i] = top if best is None else best
        placed.append(i)
    return offsets


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
