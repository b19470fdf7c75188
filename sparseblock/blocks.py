"""BlockSet: which blocks of a feature map are active."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from sparseblock.errors import SparseBlockError


@dataclass(frozen=True)
class BlockSet:
    """The active blocks of `n` images, as a list on the device.

    Attributes:
        index: int32 [capacity, 3], contiguous: (n, y, x) of each active block, in blocks, in ascending order. Rows past
            the count are unspecified.
        count: int32 [1]: how many rows of `index` are active. Kernels read it where it is; nothing copies it to the host.
        grid: (n, rows, cols), in blocks.
        block: (height, width) of a block, in pixels of the op's output.
    """

    index: torch.Tensor
    count: torch.Tensor
    grid: tuple[int, int, int]
    block: tuple[int, int]

    @staticmethod
    def from_mask(mask: torch.Tensor, block: tuple[int, int] | int) -> BlockSet:
        """The blocks where `mask`, bool [n, rows, cols], is true.

        Raises:
            SparseBlockError: `mask` is not a bool tensor of three axes, or `block` is not positive.
        """
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.dim() != 3:
            raise SparseBlockError(f"BlockSet.from_mask: mask is {_describe(mask)}; it must be a bool tensor [n, rows, cols]")
        # argsort of the negated mask puts active blocks first, in (n, y, x) order, without a host sync.
        flat = mask.flatten()
        order = torch.argsort(flat.logical_not().to(torch.uint8), stable=True)
        _, rows, cols = mask.shape
        image = order // max(rows * cols, 1)
        rest = order - image * (rows * cols)
        y = rest // max(cols, 1)
        index = torch.stack([image, y, rest - y * cols], dim=1).to(torch.int32).contiguous()
        count = flat.sum(dtype=torch.int32).reshape(1)
        return BlockSet(index, count, tuple(mask.shape), _as_block(block))

    @staticmethod
    def all(n: int, rows: int, cols: int, block: tuple[int, int] | int, device: torch.device | str = "cpu") -> BlockSet:
        """Every block of `n` images of [rows, cols] blocks."""
        return BlockSet.from_mask(torch.ones(n, rows, cols, dtype=torch.bool, device=device), block)

    def to_mask(self) -> torch.Tensor:
        """bool [n, rows, cols]: the inverse of `from_mask`."""
        n, rows, cols = self.grid
        place = torch.arange(self.index.shape[0], device=self.index.device) < self.count
        image, y, x = self.index.long().unbind(1)
        mask = torch.zeros(n * rows * cols + 1, dtype=torch.bool, device=self.index.device)
        mask[torch.where(place, (image * rows + y) * cols + x, n * rows * cols)] = True
        return mask[:-1].reshape(n, rows, cols)

    def with_block(self, block: tuple[int, int] | int) -> BlockSet:
        """The same blocks on a feature map of another stride, where a block is `block` pixels."""
        return replace(self, block=_as_block(block))


def _as_block(block: tuple[int, int] | int) -> tuple[int, int]:
    pair = (block, block) if isinstance(block, int) else tuple(block)
    if len(pair) != 2 or any(not isinstance(side, int) or side < 1 for side in pair):
        raise SparseBlockError(f"BlockSet: block is {block!r}; it must be one or two positive integers (pixels)")
    return pair


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}"
    return f"{type(value).__name__}"
