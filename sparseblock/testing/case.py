"""Case: one call of an op, with everything that is needed to judge it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from sparseblock.backends import backend
from sparseblock.blocks import BlockSet


@dataclass(frozen=True)
class Case:
    """One call of an op on active blocks.

    Attributes:
        call: what is tested; called as `call(**maps, **keywords, blocks=blocks, out=out)`.
        oracle: the op of `sparseblock.ops` that it must agree with, called alike on the reference backend.
        maps: the feature maps that it reads, [n, c, h, w], by argument name.
        reads: for each map two bool matrices, [oh, h] and [ow, w]: which rows and columns of the map an output row and
            column may read.
        out_shape: of the op's output.
        blocks: the active blocks.
        keywords: every other argument.
        tolerance: to the oracle in float64, before the one rounding to what is stored. 0: the op selects values, or
            rounds once: it gives the very values of the oracle in float32. None: the op moves data, and gives its bits.
        relative: what is allowed besides, as a part of the oracle's value.
    """

    call: Callable[..., torch.Tensor]
    oracle: Callable[..., torch.Tensor]
    maps: dict[str, torch.Tensor]
    reads: dict[str, tuple[torch.Tensor, torch.Tensor]]
    out_shape: tuple[int, int, int, int]
    blocks: BlockSet
    keywords: dict[str, object] = field(default_factory=dict)
    tolerance: float | None = None
    relative: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """Of every map, and of the output."""
        return next(iter(self.maps.values())).dtype

    def run(self, maps: dict[str, torch.Tensor], blocks: BlockSet, out: torch.Tensor) -> torch.Tensor:
        """The op on other maps, blocks or output than the case's own."""
        with torch.no_grad():
            return self.call(**maps, **self.keywords, blocks=blocks, out=out)

    def dense(self) -> torch.Tensor:
        """What the oracle gives with every block active, in the dtype that `tolerance` says."""
        dtype = self.dtype if self.tolerance is None else torch.float64 if self.tolerance else torch.float32
        cast = {name: _cast(value, dtype) for name, value in {**self.maps, **self.keywords}.items()}
        out = channels_last(torch.zeros(self.out_shape, dtype=dtype))
        with torch.no_grad(), backend("reference"):
            return self.oracle(**cast, blocks=BlockSet.all(*self.blocks.grid, self.blocks.block), out=out)

    def active(self) -> torch.Tensor:
        """bool [n, 1, oh, ow]: the pixels of active blocks."""
        mask = self.blocks.to_mask().repeat_interleave(self.blocks.block[0], 1)
        mask = mask.repeat_interleave(self.blocks.block[1], 2)
        return mask[:, None, : self.out_shape[2], : self.out_shape[3]]

    def readable(self, name: str) -> torch.Tensor:
        """bool [n, 1, h, w]: the pixels of map `name` that the active blocks may read."""
        rows, cols = self.reads[name]
        return rows.T.float() @ self.active().float() @ cols.float() > 0

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """What hypothesis prints of a failing example."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        parts = {**self.maps, **self.keywords, "out": torch.empty(self.out_shape, device="meta")}
        said = ", ".join(f"{name}={_said(value)}" for name, value in parts.items() if value is not None)
        return (
            f"{self.oracle.__name__}({said}, {self.dtype}, block={self.blocks.block}, "
            f"active={self.blocks.to_mask().int().tolist()})"
        )


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in channels-last memory."""
    return tensor.contiguous(memory_format=torch.channels_last)


def _cast(value: object, dtype: torch.dtype) -> object:
    if not isinstance(value, torch.Tensor):
        return value
    return channels_last(value.to(dtype)) if value.dim() == 4 else value.to(dtype)


def _said(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else repr(value)
