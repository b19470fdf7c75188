"""The contract as checks of one case. Each raises AssertionError where an op breaks it."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparseblock.blocks import BlockSet
from sparseblock.testing.case import Case, channels_last
from sparseblock.testing.compare import assert_identical, assert_matches
from sparseblock.testing.poison import NAN, Guard, guarded, poisoned


def check_contract(case: Case, guard: Guard = Guard()) -> None:  # noqa: B008 (frozen)
    """op(x, blocks, out) == where(active, dense_op(x), out), under poison.

    Everything that the op may not read is NaN: the maps outside of what active blocks reach, what surrounds each map in
    memory, and `out` where it is active. Everything that it may not write is compared bit for bit.
    """
    active = case.active()
    before = torch.randn(case.out_shape, generator=torch.Generator().manual_seed(0)).to(case.dtype)
    out = guarded(poisoned(before, ~active), guard)
    writable = guarded(active.expand(case.out_shape), guard, fill=False).buffer
    maps = {name: guarded(poisoned(x, case.readable(name)), guard) for name, x in case.maps.items()}
    kept = {name: x.buffer.clone() for name, x in {**maps, "out": out}.items()}

    returned = case.run({name: x.tensor for name, x in maps.items()}, case.blocks, out.tensor)

    assert returned is out.tensor, "the op must return `out` itself"
    assert_identical(out.buffer, kept["out"], where=~writable)
    for name, x in maps.items():
        assert_identical(x.buffer, kept[name])
    _assert_dense(case, out.tensor)


def check_in_place(case: Case, name: str) -> None:
    """The same where map `name` is `out` itself: what it held is read, then written over."""
    active = case.active()
    shared = guarded(case.maps[name], Guard())
    writable = guarded(active.expand(case.out_shape), Guard(), fill=False).buffer
    kept = shared.buffer.clone()
    maps = {other: channels_last(x) for other, x in case.maps.items()}
    case.run({**maps, name: shared.tensor}, case.blocks, shared.tensor)
    assert_identical(shared.buffer, kept, where=~writable)
    _assert_dense(case, shared.tensor)


def check_independence(case: Case) -> None:
    """A block's bits do not depend on the other blocks, on their order, nor on the number of threads."""
    alone = _run(case, case.blocks)
    n, rows, cols = case.blocks.grid
    others = {
        "with every block active": BlockSet.all(n, rows, cols, case.blocks.block),
        "in reverse order": _reversed(case.blocks),
    }
    for blocks in others.values():
        assert_identical(_run(case, blocks), alone, where=case.active())
    if int(case.blocks.count):
        single = BlockSet.from_index(case.blocks.index[:1].clone(), case.blocks.grid, case.blocks.block)
        assert_identical(_run(case, single), alone, where=replace(case, blocks=single).active())
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert_identical(_run(case, case.blocks), alone)
    finally:
        torch.set_num_threads(threads)


def _assert_dense(case: Case, out: torch.Tensor) -> None:
    if case.tolerance is None:
        assert_identical(out, case.dense(), where=case.active())
    else:
        assert_matches(out, case.dense(), case.tolerance, case.active(), case.relative)


def _run(case: Case, blocks: BlockSet) -> torch.Tensor:
    out = channels_last(torch.full(case.out_shape, NAN, dtype=case.dtype))
    return case.run({name: channels_last(x) for name, x in case.maps.items()}, blocks, out)


def _reversed(blocks: BlockSet) -> BlockSet:
    index = blocks.index[: int(blocks.count)].flip(0).contiguous()
    return BlockSet.from_index(index, blocks.grid, blocks.block)
