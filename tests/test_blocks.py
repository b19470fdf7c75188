"""BlockSet: masks to lists and back."""

from __future__ import annotations

import re
from ctypes import c_int32
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseblock import BlockSet, FeatureCache, SparseBlockError, ops
from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.blocks_from_mask import blocks_from_mask
from sparseblock.blocks import _listed_by_sorting
from sparseblock.testing import strategies

SHAPES = st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6))


@st.composite
def masks(draw, shapes=SHAPES):
    shape = draw(shapes)
    density = draw(st.sampled_from([0.0, 0.3, 1.0]))
    return torch.rand(shape, generator=draw(strategies.generators())) < density


def raises(message: str):
    return pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$")


@given(masks())
def test_mask_to_list_and_back(mask):
    blocks = BlockSet.from_mask(mask, 4)
    assert torch.equal(blocks.to_mask(), mask)
    assert blocks.index.dtype == blocks.count.dtype == torch.int32
    assert blocks.index.is_contiguous()
    assert blocks.index[: int(blocks.count)].tolist() == mask.nonzero().tolist()
    assert blocks.grid == tuple(mask.shape)


@pytest.mark.parametrize("kernel", [False, True], ids=["by_sorting", "by_a_kernel"])
def test_list_without_a_wait_for_the_device(kernel, cuda_device):
    """The list that other devices make has room for every block."""

    @given(st.one_of(masks(), masks(st.just((2, 33, 47)))))
    def check(mask):
        index, count = blocks_from_mask(mask.to(cuda_device)) if kernel else _listed_by_sorting(mask)
        assert index.shape == (mask.numel(), 3) and index.is_contiguous()
        assert index.dtype == count.dtype == torch.int32 and count.shape == (1,)
        assert index[: int(count)].tolist() == mask.nonzero().tolist()
        assert torch.equal(BlockSet(index, count, tuple(mask.shape), (4, 4)).to_mask().cpu(), mask)

    check()


def made_by_hand(index, count=None, grid=(1, 2, 3), block=(4, 4)):
    index = torch.tensor(index, dtype=torch.int32) if isinstance(index, list) else index
    return BlockSet(index, torch.tensor([len(index) if count is None else count], dtype=torch.int32), grid, block)


def test_a_list_made_by_hand_may_have_anything_past_its_count():
    blocks = made_by_hand([[0, 1, 2], [0, 0, 0], [0, 0, 0], [7, -1, 2**31 - 1]], count=2, grid=[1, 2, 3], block=4)
    assert blocks.to_mask().nonzero().tolist() == [[0, 0, 0], [0, 1, 2]]
    assert blocks.grid == (1, 2, 3) and blocks.block == (4, 4)
    assert made_by_hand(torch.empty(0, 3, dtype=torch.int32)).to_mask().sum() == 0


def test_a_list_made_by_hand_is_traced():
    """There are no values to look at."""
    index, count = BlockSet.all(1, 2, 2, 4).index, torch.tensor([2], dtype=torch.int32)

    @torch.compile(fullgraph=True, backend="eager")
    def relu(x, index, count):
        return ops.activation(x, BlockSet(index, count, (1, 2, 2), 4), torch.zeros_like(x), activation="relu")

    out = relu(torch.ones(1, 1, 8, 8), index, count)
    assert out.sum() == 2 * 4 * 4


def test_on_a_device_nothing_is_read_back():
    """A tensor on "meta" has no values: to read one raises."""
    blocks = BlockSet.all(2, 3, 4, 16, device="meta").with_block(8)
    blocks = BlockSet(blocks.index, blocks.count, blocks.grid, blocks.block)
    assert blocks.index.shape == (24, 3) and blocks.count.shape == (1,) and blocks.block == (8, 8)
    assert {tensor.device.type for tensor in (blocks.index, blocks.count, blocks.to_mask())} == {"meta"}


@given(masks())
def test_the_native_list_is_the_same(mask):
    index, count = torch.empty(mask.numel(), 3, dtype=torch.int32), c_int32()
    bytes_ = mask.to(torch.uint8).contiguous()
    native.lib().sb_blocks_from_mask(bytes_.data_ptr(), *mask.shape, index.data_ptr(), native.ctypes.addressof(count))
    assert index[: count.value].tolist() == mask.nonzero().tolist()


def test_all_and_with_block():
    blocks = BlockSet.all(2, 3, 4, 16)
    assert blocks.to_mask().all() and blocks.grid == (2, 3, 4) and blocks.block == (16, 16)
    other = blocks.with_block((4, 8))
    assert other.block == (4, 8) and other.index is blocks.index and other.count is blocks.count


def test_from_index_takes_any_order():
    index = torch.tensor([[0, 1, 2], [0, 0, 0]], dtype=torch.int32)
    blocks = BlockSet.from_index(index, (1, 2, 3), 4)
    assert blocks.to_mask().nonzero().tolist() == [[0, 0, 0], [0, 1, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: BlockSet.from_mask(torch.ones(2, 2, dtype=torch.bool), 4),
            "BlockSet.from_mask: mask is torch.bool [2, 2] on cpu; it must be a dense bool tensor [n, rows, cols]",
        ),
        (
            lambda: BlockSet.from_mask(torch.ones(1, 2, 2), 4),
            "BlockSet.from_mask: mask is torch.float32 [1, 2, 2] on cpu; "
            "it must be a dense bool tensor [n, rows, cols]",
        ),
        (
            lambda: BlockSet.from_mask([[[True]]], 4),
            "BlockSet.from_mask: mask is a list; it must be a dense bool tensor [n, rows, cols]",
        ),
        (
            lambda: BlockSet.from_mask(torch.ones(1, 2, 2, dtype=torch.bool).to_sparse(), 4),
            "BlockSet.from_mask: mask is torch.bool [1, 2, 2] on cpu, torch.sparse_coo; "
            "it must be a dense bool tensor [n, rows, cols]",
        ),
        (
            lambda: BlockSet.all(1, 2, 2, 0),
            "BlockSet: block is 0; it must be one or two positive integers (pixels)",
        ),
        (
            lambda: BlockSet.all(1, 1, 1, True),
            "BlockSet: block is True; it must be one or two positive integers (pixels)",
        ),
        (
            lambda: BlockSet.all(1, 1, 1, (4, 2**31)),
            "BlockSet: block is (4, 2147483648); both sides must be below 2**31 pixels",
        ),
        (
            lambda: BlockSet.all(-1, 2, 3, 16),
            "BlockSet.all: n, rows, cols are -1, 2, 3; they must be integers of at least 0 and below 2**31, in blocks",
        ),
        (
            lambda: BlockSet.all("a", 2, 3, 16),
            "BlockSet.all: n, rows, cols are 'a', 2, 3; they must be integers of at least 0 and below 2**31, in blocks",
        ),
        (
            lambda: BlockSet.all(2**31 - 1, 2**31 - 1, 2**31 - 1, 4),
            f"BlockSet.all: n, rows, cols are 2147483647, 2147483647, 2147483647: {(2**31 - 1) ** 3} blocks; they must "
            "be fewer than 2**31: use larger blocks or fewer images",
        ),
        (
            lambda: BlockSet.all(2, 2**15, 2**15, 4, device="meta"),
            "BlockSet.all: n, rows, cols are 2, 32768, 32768: 2147483648 blocks; they must be fewer than 2**31: use "
            "larger blocks or fewer images",
        ),
        (
            lambda: BlockSet.all(1, 2, 2, 4, device=1.5),
            "BlockSet.all: device is 1.5, where torch makes no tensors (empty(): argument 'device' must be "
            "torch.device, not float); it must be one of this machine, as 'cpu'",
        ),
        (
            lambda: BlockSet.from_index(torch.zeros(1, 3, dtype=torch.int32), 5, 16),
            "BlockSet.from_index: grid is 5; it must be (n, rows, cols), in blocks, fewer than 2**63",
        ),
        (
            lambda: BlockSet.all(1, 2, 2, 4.0),
            "BlockSet: block is 4.0; it must be one or two positive integers (pixels)",
        ),
        (
            lambda: BlockSet.all(1, 2, 2, (4, 4, 4)),
            "BlockSet: block is (4, 4, 4); it must be one or two positive integers (pixels)",
        ),
        (
            lambda: BlockSet.from_index(torch.zeros(2, 3), (1, 2, 2), 4),
            "BlockSet.from_index: index is torch.float32 [2, 3] on cpu; it must be an int32 tensor [count, 3]",
        ),
        (
            lambda: BlockSet.from_index(torch.tensor([[0, 0, 0], [0, 2, 1]], dtype=torch.int32), (1, 2, 2), 4),
            "BlockSet.from_index: block [0, 2, 1] lies outside of the grid (n, y, x) = [1, 2, 2]",
        ),
        (
            lambda: BlockSet.from_index(torch.zeros(1, 3, dtype=torch.int32, device="meta"), (1, 2, 2), 4),
            "BlockSet.from_index: index is on meta, where tensors have no values; use a device that computes",
        ),
        (
            lambda: BlockSet.from_index(torch.tensor([[0, -1, 0]], dtype=torch.int32), (1, 2, 2), 4),
            "BlockSet.from_index: block [0, -1, 0] lies outside of the grid (n, y, x) = [1, 2, 2]",
        ),
        (
            lambda: BlockSet.from_index(torch.zeros(2, 3, dtype=torch.int32), (1, 2, 2), 4),
            "BlockSet.from_index: block [0, 0, 0] is listed twice; list each block once",
        ),
        (
            lambda: BlockSet.from_index(torch.zeros(1, 3, dtype=torch.int32), (2, 2), 4),
            "BlockSet.from_index: grid is (2, 2); it must be (n, rows, cols), in blocks, fewer than 2**63",
        ),
        (
            lambda: made_by_hand(torch.zeros(1, 3, dtype=torch.int64)),
            "BlockSet: index is torch.int64 [1, 3] on cpu and count is torch.int32 [1] on cpu; they must be int32 "
            "tensors [capacity, 3] and [1]: BlockSet.from_index makes them so",
        ),
        (
            lambda: BlockSet(torch.zeros(1, 3, dtype=torch.int32), 1, (1, 2, 3), (4, 4)),
            "BlockSet: index is torch.int32 [1, 3] on cpu and count is a int; they must be int32 "
            "tensors [capacity, 3] and [1]: BlockSet.from_index makes them so",
        ),
        (
            lambda: made_by_hand(torch.zeros(3, 2, dtype=torch.int32).T),
            "BlockSet: index has strides (1, 2); it must be without gaps: index.contiguous()",
        ),
        (
            lambda: made_by_hand(torch.zeros(1, 3, dtype=torch.int32, device="meta")),
            "BlockSet: index is on meta but count is on cpu; they must be on one device",
        ),
        (
            lambda: made_by_hand([[0, 0, 0]], grid=(1, 2)),
            "BlockSet: grid is (1, 2); it must be (n, rows, cols), in blocks, fewer than 2**63",
        ),
        (
            lambda: made_by_hand([[0, 0, 0]], grid=(2**31 - 1,) * 3),
            "BlockSet: grid is (2147483647, 2147483647, 2147483647); it must be (n, rows, cols), in blocks, "
            "fewer than 2**63",
        ),
        (
            lambda: made_by_hand([[0, 0, 0]], block=(4, 0)),
            "BlockSet: block is (4, 0); it must be one or two positive integers (pixels)",
        ),
        (
            lambda: made_by_hand([[0, 0, 0]], count=2),
            "BlockSet: blocks have count 2 but 1 rows of index; count is how many of them are active",
        ),
        (
            lambda: made_by_hand([[0, 0, 0]], count=-1),
            "BlockSet: blocks have count -1 but 1 rows of index; count is how many of them are active",
        ),
        (
            lambda: made_by_hand([[0, 0, 0], [0, 1, 3]]),
            "BlockSet: block [0, 1, 3] lies outside of the grid (n, y, x) = [1, 2, 3]",
        ),
        (
            lambda: made_by_hand([[0, 0, 0], [-1, 1, 2]]),
            "BlockSet: block [-1, 1, 2] lies outside of the grid (n, y, x) = [1, 2, 3]",
        ),
        (
            lambda: made_by_hand([[0, 0, 0], [0, 1, 2], [0, 1, 0], [0, 1, 2]]),
            "BlockSet: block [0, 1, 2] is listed twice; list each block once",
        ),
        (
            lambda: replace(BlockSet.all(1, 2, 3, 4), count=torch.tensor([7], dtype=torch.int32)),
            "BlockSet: blocks have count 7 but 6 rows of index; count is how many of them are active",
        ),
    ],
)
def test_wrong_input_is_one_clear_line(make, message):
    with raises(message):
        make()


@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    for name, make in (
        ("BlockSet.all", lambda: BlockSet.all(1, 2, 2, 4, device=device)),
        ("FeatureCache", lambda: FeatureCache([], device=device)),
    ):
        what = f"{name}: device is '{device}', where torch makes no tensors"
        message = rf"^{what} \(.+\); it must be one of this machine, as 'cpu'$"
        with pytest.raises(SparseBlockError, match=message):
            make()


def test_too_little_memory_for_a_list_is_said(monkeypatch):
    """Not tried with a list that large: systems may promise memory that they do not have."""

    def ones(*sizes, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "ones", ones)
    with raises(
        "BlockSet.all: n, rows, cols are 1, 40000, 50000: the list of 2000000000 blocks takes more memory than there "
        "is on cpu; use larger blocks or fewer images"
    ):
        BlockSet.all(1, 40000, 50000, 4)
