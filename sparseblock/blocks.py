"""BlockSet: which blocks of a feature map are active."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensor

from sparseblock import backends
from sparseblock.errors import SparseBlockError
from sparseblock.grid import LIMIT


@dataclass(frozen=True)
class BlockSet:
    """The active blocks of `n` images, as a list on the device.

    Build it with `from_mask`, `from_index` or `all`. The constructor is for lists that were made by hand. On the CPU it
    looks at them; on a device it looks at types and shapes alone, since the host would have to wait for the values, and
    kernels write where the list says.

    Attributes:
        index: int32 [capacity, 3], contiguous: (n, y, x) of each active block, in blocks, each block once. Rows past
            the count are unspecified.
        count: int32 [1]: how many rows of `index` are active. Kernels read it where it is; nothing copies it to the
            host.
        grid: (n, rows, cols), in blocks.
        block: (height, width) of a block, in pixels of the op's output.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, True]]])
        >>> BlockSet.from_mask(mask, block=16).index
        tensor([[0, 0, 0],
                [0, 1, 1]], dtype=torch.int32)
    """

    index: torch.Tensor
    count: torch.Tensor
    grid: tuple[int, int, int]
    block: tuple[int, int]

    def __post_init__(self) -> None:
        """Raises SparseBlockError where a field is not what the attributes say; of values on the CPU alone."""
        index, count = self.index, self.count
        if not _is_int32(index, (-1, 3)) or not _is_int32(count, (1,)):
            raise SparseBlockError(
                f"BlockSet: index is {describe(index)} and count is {describe(count)}; they must be int32 tensors "
                "[capacity, 3] and [1]: BlockSet.from_index makes them so"
            )
        if not index.is_contiguous():
            raise SparseBlockError(
                f"BlockSet: index has strides {index.stride()}; it must be without gaps: index.contiguous()"
            )
        if index.device != count.device:
            raise SparseBlockError(
                f"BlockSet: index is on {index.device} but count is on {count.device}; they must be on one device"
            )
        object.__setattr__(self, "grid", _as_grid("BlockSet", self.grid))
        object.__setattr__(self, "block", _as_block(self.block))
        if index.device.type == "cpu" and not is_traced(index):
            check_count("BlockSet", index, count)
            _check_rows("BlockSet", index[: int(count)], self.grid)

    @staticmethod
    def from_mask(mask: torch.Tensor, block: tuple[int, int] | int) -> BlockSet:
        """The blocks where `mask`, bool [n, rows, cols], is true, in ascending order of (n, y, x).

        Raises:
            SparseBlockError: `mask` is not a dense bool tensor of three axes, or `block` is not positive.
        """
        if not is_mask(mask) or mask.dim() != 3:
            raise SparseBlockError(
                f"BlockSet.from_mask: mask is {describe(mask)}; it must be a dense bool tensor [n, rows, cols]"
            )
        index, count = _listed(mask)
        return trusted(index, count, tuple(mask.shape), _as_block(block))

    @staticmethod
    def from_index(index: torch.Tensor, grid: tuple[int, int, int], block: tuple[int, int] | int) -> BlockSet:
        """The blocks listed in `index`, int32 [count, 3] of (n, y, x) in any order; `grid` is (n, rows, cols).

        Waits for the device to check the list.

        Raises:
            SparseBlockError: `index` is no int32 tensor of three columns, a row lies outside of the grid or is there
                twice, `grid` is no (n, rows, cols), or `block` is not positive.
        """
        if not _is_int32(index, (-1, 3)):
            raise SparseBlockError(
                f"BlockSet.from_index: index is {describe(index)}; it must be an int32 tensor [count, 3]"
            )
        grid = _as_grid("BlockSet.from_index", grid)
        check_values("BlockSet.from_index: index is", index)
        _check_rows("BlockSet.from_index", index.cpu(), grid)
        count = torch.tensor([len(index)], dtype=torch.int32, device=index.device)
        return trusted(index.contiguous(), count, grid, _as_block(block))

    @staticmethod
    def all(n: int, rows: int, cols: int, block: tuple[int, int] | int, device: torch.device | str = "cpu") -> BlockSet:
        """Every block of `n` images of [rows, cols] blocks.

        Raises:
            SparseBlockError: a size is negative or no integer, there are 2**31 blocks or more, or more than memory
                holds, `block` is not positive, or there is no such device.
        """
        if not all(map(_is_size, (n, rows, cols))):
            raise SparseBlockError(
                f"BlockSet.all: n, rows, cols are {n!r}, {rows!r}, {cols!r}; they must be integers of at least 0 "
                "and below 2**31, in blocks"
            )
        if n * rows * cols >= LIMIT:  # of which the count, an int32, counts all
            raise SparseBlockError(
                f"BlockSet.all: n, rows, cols are {n}, {rows}, {cols}: {n * rows * cols} blocks; they must be fewer "
                "than 2**31: use larger blocks or fewer images"
            )
        block, device = _as_block(block), backends.device_that_is_there("BlockSet.all", device)
        try:
            return BlockSet.from_mask(torch.ones(n, rows, cols, dtype=torch.bool, device=device), block)
        except (RuntimeError, MemoryError) as error:
            raise SparseBlockError(
                f"BlockSet.all: n, rows, cols are {n}, {rows}, {cols}: the list of {n * rows * cols} blocks takes more "
                f"memory than there is on {device}; use larger blocks or fewer images"
            ) from error

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
        return trusted(self.index, self.count, self.grid, _as_block(block))


def trusted(index: torch.Tensor, count: torch.Tensor, grid: tuple[int, int, int], block: tuple[int, int]) -> BlockSet:
    """A BlockSet of fields that need no look."""
    blocks = object.__new__(BlockSet)
    for name, value in (("index", index), ("count", count), ("grid", grid), ("block", block)):
        object.__setattr__(blocks, name, value)
    return blocks


def check_place(op: str, blocks: BlockSet, name: str, device: torch.device) -> None:
    """`blocks` are on the device of tensor `name`: kernels read them where they are."""
    if blocks.index.device != device:
        raise SparseBlockError(
            f"{op}: blocks are on {blocks.index.device} but {name} is on {device}; they must be on one device"
        )


def check_count(op: str, index: torch.Tensor, count: torch.Tensor) -> None:
    """On the CPU, where looking costs no wait: the count is no more than the rows of the list."""
    if count.device.type == "cpu" and not 0 <= int(count) <= len(index):
        raise SparseBlockError(
            f"{op}: blocks have count {int(count)} but {len(index)} rows of index; count is how many of them are active"
        )


def check_values(what: str, tensor: torch.Tensor) -> None:
    """What is looked at has values."""
    if tensor.device.type == "meta":
        raise SparseBlockError(f"{what} on meta, where tensors have no values; use a device that computes")


def is_traced(tensor: torch.Tensor) -> bool:
    """Whether it has no values or memory yet, as where torch.compile looks at a function."""
    return torch.compiler.is_compiling() or isinstance(tensor, FakeTensor)


def _check_rows(op: str, rows: torch.Tensor, grid: tuple[int, int, int]) -> None:
    """Every row of a list, on the CPU, lies in `grid`, as kernels write where it says, and is there once."""
    if not len(rows):
        return
    least, most = rows.amin(0).tolist(), rows.amax(0).tolist()
    if min(least) < 0 or any(last >= side for last, side in zip(most, grid, strict=True)):
        outside = ((rows < 0) | (rows >= torch.tensor(grid))).any(dim=1)
        raise SparseBlockError(
            f"{op}: block {rows[outside][0].tolist()} lies outside of the grid (n, y, x) = {list(grid)}"
        )
    image, y, x = rows.long().unbind(1)
    _, place, times = ((image * grid[1] + y) * grid[2] + x).unique(return_inverse=True, return_counts=True)
    if len(times) < len(rows):
        twice = rows[times[place] > 1][0].tolist()
        raise SparseBlockError(f"{op}: block {twice} is listed twice; list each block once")


def _listed(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and count of the true elements of `mask`; on a device with room for every block, so that nothing waits."""
    if mask.device.type == "cpu":
        index = mask.nonzero().to(torch.int32).contiguous()  # nonzero's result is column-major
        return index, torch.tensor([len(index)], dtype=torch.int32)
    if mask.device.type == "cuda" and backends.selected(mask.device) == "cuda":
        return backends.implementation("cuda", "blocks_from_mask")(mask)
    return _listed_by_sorting(mask)


def _listed_by_sorting(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in operators of torch, for any device."""
    _, rows, cols = mask.shape
    # A stable sort of the negated mask puts active blocks first, in ascending order.
    order = torch.argsort(mask.flatten().logical_not().to(torch.uint8), stable=True)
    image = order // max(rows * cols, 1)
    within = order - image * (rows * cols)
    y = within // max(cols, 1)
    index = torch.stack([image, y, within - y * cols], dim=1).to(torch.int32)
    return index, mask.sum(dtype=torch.int32).reshape(1)


def _as_block(block: tuple[int, int] | int) -> tuple[int, int]:
    pair = (block, block) if isinstance(block, int) else tuple(block) if isinstance(block, Sequence) else ()
    if len(pair) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in pair):
        raise SparseBlockError(f"BlockSet: block is {block!r}; it must be one or two positive integers (pixels)")
    if max(pair) >= LIMIT:
        raise SparseBlockError(f"BlockSet: block is {block!r}; both sides must be below 2**31 pixels")
    return pair


def _as_grid(op: str, grid: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(grid, Sequence) or len(grid) != 3 or not all(map(_is_size, grid)) or math.prod(grid) >= 2**63:
        raise SparseBlockError(f"{op}: grid is {grid!r}; it must be (n, rows, cols), in blocks, fewer than 2**63")
    return tuple(grid)


def _is_int32(value: object, shape: tuple[int, ...]) -> bool:
    """A dense tensor of this shape; -1: any length."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.int32
        and value.layout == torch.strided
        and value.dim() == len(shape)
        and all(side in (-1, length) for side, length in zip(shape, value.shape, strict=True))
    )


def _is_size(axis: object) -> bool:
    return isinstance(axis, int) and not isinstance(axis, bool) and 0 <= axis < LIMIT


def is_mask(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool and value.layout == torch.strided


def describe(value: object) -> str:
    """What stands in place of a mask or a list of blocks."""
    if isinstance(value, torch.Tensor):
        layout = "" if value.layout == torch.strided else f", {value.layout}"
        return f"{value.dtype} {list(value.shape)} on {value.device}{layout}"
    return f"a BlockSet of {list(value.grid)}" if isinstance(value, BlockSet) else f"a {type(value).__name__}"
