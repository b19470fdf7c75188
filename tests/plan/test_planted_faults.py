"""Faults put into the planner on purpose: the comparison with dense network and reference must notice each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from miniatures import miniature
from test_random_networks import check, random_masks

from sparseblock.cache import FeatureCache
from sparseblock.plan import chains, placement, plan, planes
from sparseblock.plan.ir import BlockMoments, Epilogue
from sparseblock.plan.steps import Steps


def border_without_memory(monkeypatch):
    """Planes say that they have a border of zeros, and have none."""
    make = FeatureCache.__init__

    def init(self, specs, streams=1):
        make(self, [replace(spec, border=0) for spec in specs], streams)
        self.specs = specs
        for plane, spec in zip(self.planes, specs, strict=True):
            plane.border = spec.border

    monkeypatch.setattr(FeatureCache, "__init__", init)


def live_values_share(monkeypatch):
    """Every transient value lies at the beginning of the shared memory, free or not."""
    monkeypatch.setattr(planes, "assign_offsets", lambda spans: [0] * len(spans))


def a_life_too_short(monkeypatch):
    """Memory is taken to be free as soon as it is written."""
    assign = planes.assign_offsets
    monkeypatch.setattr(
        planes, "assign_offsets", lambda spans: assign([replace(span, last=span.first) for span in spans])
    )


def result_over_a_live_input(monkeypatch):
    """A node writes over an input that others still read."""
    in_place = planes._in_place

    def over_the_living(graph, dying, tree, chains):
        return in_place(graph, replace(dying, last=tree.first), tree, chains)

    monkeypatch.setattr(planes, "_in_place", over_the_living)


def halo_read_from_transient(monkeypatch):
    """Values that are read with a halo are taken for transient."""
    monkeypatch.setattr(planes, "reads_within_block", lambda *_: True)


def memory_free_inside_of_a_chain(monkeypatch):
    """A value's memory is taken to be free when its node of a chain is through, though other pieces need it yet."""
    monkeypatch.setattr(planes, "_moments", lambda place, chains: (place, place))


def pieces_share_their_scratch(monkeypatch):
    """All values of a chain lie at the same place of a thread's scratch."""
    scratch = planes._scratch
    monkeypatch.setattr(planes, "_scratch", lambda *args: dict.fromkeys(scratch(*args), 0))


def halo_read_within_a_chain(monkeypatch):
    """A node that reads with a halo what the chain has not yet written everywhere joins it."""
    monkeypatch.setattr(chains, "reads_within_block", lambda *_: True)


def pieces_in_the_wrong_place(monkeypatch):
    """A chain's pieces are half as high as they should be: half of each block is never computed."""
    make = Steps._join

    def join(self, chain, by_name, scratch):
        halves = {name: (max(1, rows // 2), cols) for name, (rows, cols) in chain.pieces.items()}
        make(self, chain, by_name, scratch)
        for name, (rows, _) in halves.items():
            by_name[name].piece_h = rows
            by_name[name].block_h = chain.pieces[name][0] * (by_name[name].block_h // chain.pieces[name][0]) // 2

    monkeypatch.setattr(Steps, "_join", join)


def slices_in_the_wrong_place(monkeypatch):
    homes = planes.homes
    monkeypatch.setattr(planes, "homes", lambda graph: {name: (home, 0) for name, (home, _) in homes(graph).items()})


def blocks_of_the_wrong_stride(monkeypatch):
    place = placement.place

    def wrong(graph, grid):
        placements = place(graph, grid)
        return {name: replace(item, block=max(1, item.block // 2)) for name, item in placements.items()}

    monkeypatch.setattr(plan, "place", wrong)


def epilogue_of_the_wrong_channels(monkeypatch):
    """A part of a split concatenation takes the first channels' scale and shift."""
    good = Epilogue.channels
    monkeypatch.setattr(Epilogue, "channels", lambda self, start, stop: good(self, 0, stop - start))


def frame_not_read(monkeypatch):
    """The frame's place in the table of planes is another tensor's."""
    bind = FeatureCache.bind
    monkeypatch.setattr(FeatureCache, "bind", lambda self, name, frame: bind(self, name, torch.zeros_like(frame)))


def statistics_are_left_alone(monkeypatch):
    """What depends on all blocks is computed where the first block is active."""
    place = placement.place

    def wrong(graph, grid):
        once = placement.Placement("sparse", "", 1)
        return {name: once if item.kind == "incremental" else item for name, item in place(graph, grid).items()}

    monkeypatch.setattr(plan, "place", wrong)


def cells_are_not_kept(monkeypatch):
    """Contributions of blocks that are not active are those of an empty map."""
    run = Steps.run

    def forgetful(self, planes, *rest):
        for node in self.nodes:
            if isinstance(node.op, BlockMoments):
                self.cells[node.output].zero_()
        run(self, planes, *rest)

    make = FeatureCache.__init__

    def init(self, specs, streams=1):
        make(self, specs, streams)
        Steps.cells = self

    monkeypatch.setattr(FeatureCache, "__init__", init)
    monkeypatch.setattr(Steps, "cells", None, raising=False)
    monkeypatch.setattr(Steps, "run", forgetful)


FAULTS = {
    border_without_memory: "vdsr",
    live_values_share: "pyramid",
    memory_free_inside_of_a_chain: "branches",
    pieces_share_their_scratch: "branches",
    halo_read_within_a_chain: "vdsr",
    pieces_in_the_wrong_place: "bottlenecks",
    a_life_too_short: "pyramid",
    result_over_a_live_input: "bottlenecks",
    halo_read_from_transient: "pyramid",
    slices_in_the_wrong_place: "pyramid",
    blocks_of_the_wrong_stride: "vdsr",
    epilogue_of_the_wrong_channels: "pyramid",
    frame_not_read: "vdsr",
    statistics_are_left_alone: "context",
    cells_are_not_kept: "context",
}


@pytest.mark.parametrize("plant", FAULTS)
def test_fault_is_noticed(plant, monkeypatch):
    monkeypatch.setattr(chains, "CACHE_BYTES", 1 << 12)  # the miniatures' blocks are cut into several pieces
    monkeypatch.setattr(chains, "LEAST_PIXELS", 1)
    monkeypatch.setattr(chains, "MOST_MACS", 1000)
    case = miniature(FAULTS[plant])
    masks = random_masks(case, 1, seed=0)
    check(case, 1, masks, deep=True)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="elements are off"):
        check(case, 1, masks, deep=True)
