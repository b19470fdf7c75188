"""gather and scatter: the packed side of the contract, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sparseblock import BlockSet, ops
from sparseblock.testing import Guard, assert_identical, guarded, poisoned, strategies


@dataclass(frozen=True)
class Packed:
    """A plane of any bits, blocks over it, a halo."""

    x: torch.Tensor
    blocks: BlockSet
    halo: int

    def expected(self) -> list[torch.Tensor]:
        """Each active block with its halo."""
        (height, width), halo = self.blocks.block, self.halo
        _, rows, cols = self.blocks.grid
        _, _, h, w = self.x.shape
        padded = F.pad(self.x, (halo, halo + cols * width - w, halo, halo + rows * height - h))
        return [
            padded[n, :, y * height : (y + 1) * height + 2 * halo, x * width : (x + 1) * width + 2 * halo]
            for n, y, x in self.blocks.index[: int(self.blocks.count)].tolist()
        ]

    def readable(self) -> torch.Tensor:
        """bool [n, 1, h, w]: active blocks and their halo."""
        n, _, h, w = self.x.shape
        readable = torch.zeros(n, 1, h, w, dtype=torch.bool)
        for image, y, x in self.blocks.index[: int(self.blocks.count)].tolist():
            top, left = y * self.blocks.block[0], x * self.blocks.block[1]
            bottom, right = top + self.blocks.block[0] + self.halo, left + self.blocks.block[1] + self.halo
            readable[image, :, max(top - self.halo, 0) : bottom, max(left - self.halo, 0) : right] = True
        return readable


@st.composite
def packed(draw: st.DrawFn, halos: st.SearchStrategy[int]) -> Packed:
    shape = (draw(st.integers(1, 2)), draw(strategies.CHANNELS), draw(strategies.SIDES), draw(strategies.SIDES))
    x = strategies.any_bits(draw(strategies.generators()), *shape, dtype=draw(strategies.DTYPES))
    return Packed(x, draw(strategies.arbitrary_blocks(shape[0], *shape[2:])), draw(halos))


def room(case: Packed) -> torch.Tensor:
    """Where packed blocks go, between images of NaN."""
    sides = [side + 2 * case.halo for side in case.blocks.block]
    values = torch.full((len(case.blocks.index), case.x.shape[1], *sides), 7.0, dtype=case.x.dtype)
    return guarded(values, Guard(0, 0))


@pytest.mark.parametrize("name", ["cpu", "cuda", "triton"])
def test_gather_copies_active_blocks_with_their_halo(name, there, examples):
    @examples
    @given(packed(st.integers(0, 3)), strategies.guards())
    def check(case, guard):
        out, x = room(case), guarded(poisoned(case.x, case.readable()), guard)
        kept, count = out.buffer.clone(), int(case.blocks.count)
        assert there(ops.gather)(x=x.tensor, blocks=case.blocks, out=out.tensor, halo=case.halo) is out.tensor
        for block, expected in zip(out.tensor[:count], case.expected(), strict=True):
            assert_identical(block, expected)
        assert_identical(out.buffer[1 + count :], kept[1 + count :])
        assert_identical(out.buffer[:1], kept[:1])

    check()


@pytest.mark.parametrize("name", ["cpu", "cuda", "triton"])
def test_scatter_is_the_inverse_of_gather_and_clips(name, there, examples):
    @examples
    @given(packed(st.just(0)), strategies.guards())
    def check(case, guard):
        x = case.x.contiguous(memory_format=torch.channels_last)
        blocks = there(ops.gather)(x=x, blocks=case.blocks, out=room(case).tensor)
        out = guarded(torch.full_like(case.x, 7.0), guard)
        kept, writable = out.buffer.clone(), guarded(case.readable().expand(case.x.shape), guard, fill=False).buffer
        assert there(ops.scatter)(packed=blocks, blocks=case.blocks, out=out.tensor) is out.tensor
        assert_identical(out.tensor, case.x, where=case.readable())
        assert_identical(out.buffer, kept, where=~writable)

    check()


@given(packed(st.integers(0, 2)))
def test_any_number_of_threads_and_any_order(case):
    index = case.blocks.index[: int(case.blocks.count)]
    reverse = BlockSet.from_index(index.flip(0).contiguous(), case.blocks.grid, case.blocks.block)
    x, count, before = case.x.contiguous(memory_format=torch.channels_last), len(index), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            forward = ops.gather(x, case.blocks, room(case).tensor, halo=case.halo)[:count]
            if count:
                out = room(Packed(case.x, reverse, case.halo)).tensor
                assert_identical(ops.gather(x, reverse, out, halo=case.halo).flip(0), forward)
            for block, expected in zip(forward, case.expected(), strict=True):
                assert_identical(block, expected)
    finally:
        torch.set_num_threads(before)
