"""Rims: maps that readers look at with a halo share memory, and what lasts of their blocks gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tasknets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import MINIATURES, miniature
from networks import Case, cases
from test_plan_planes import by_origin, planes
from test_random_networks import check, random_masks
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock import BlockSet
from sparseblock.cache import total_bytes
from sparseblock.plan import GatedLayer, Plan
from sparseblock.plan import planes as assignment


@contextmanager
def rims(kept: bool) -> Iterator[None]:
    """Rims are kept wherever they can be, whatever they take; or nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "SMALL", 0)
        patch.setattr(assignment, "total_bytes", lambda specs: 0 if kept == any(spec.rims for spec in specs) else 1)
        yield


def compiled(case: Case, kept: bool, dtype: torch.dtype = torch.float32, algorithms: str = "direct") -> Plan:
    with rims(kept):
        return sparseblock.compile(case.network, case.frames(), case.block, algorithms=algorithms, dtype=dtype)


def compare(case: Case, streams: int, seed: int, dtype: torch.dtype = torch.float32, algorithms: str = "direct") -> int:
    """Same bits with rims and without, though no more of the shared memory lasts. Returns how many maps have rims."""
    plans = [compiled(case, kept, dtype, algorithms) for kept in (False, True)]
    states = [plan.new_state(streams) for plan in plans]
    grid = plans[0].grid
    everything = torch.ones(streams, grid.rows, grid.cols, dtype=torch.bool)
    for mask in (everything, *random_masks(case, streams, seed), *random_masks(case, streams, seed + 1)):
        frame = case.frames(streams)
        for state in states:
            state._shared.fill_(255)  # NaN in every dtype
        pairs = zip(*(pytree.tree_leaves(p(frame, mask, s)) for p, s in zip(plans, states, strict=True)), strict=True)
        for without, with_rims in pairs:
            assert torch.equal(without, with_rims)
    return sum(spec.rims is not None for spec in plans[1]._specs)


@settings(max_examples=60)
@given(cases(), st.integers(1, 2), st.integers(0, 2**16))
def test_random_network_has_the_same_bits(case, streams, seed):
    compare(case, streams, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [4, 8, 16, 32])
@pytest.mark.parametrize("name", MINIATURES)
def test_miniature_has_the_same_bits(name, block, dtype):
    kept = compare(miniature(name, block), 3, seed=1, dtype=dtype)
    assert kept or (name, block) in (("next", 4), ("response", 4))  # windows of 7 pixels on blocks of 2


@pytest.mark.parametrize("groups", [1, 8])
def test_a_sum_is_not_written_over_what_the_next_piece_sees(groups):
    """An inverted residual: its chain begins with a window on the map that its last node adds."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.window = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
            self.wide, self.narrow = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.narrow(self.wide(self.window(x)).relu())

    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Block(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    case = Case(network, (3, 96, 128), 32)
    plan = compiled(case, kept=True)
    (chain,) = plan._chains
    assert [node.origin for node in plan.graph.nodes[chain.first : chain.last + 1]] == [
        "1.window",
        "1.wide",
        "1.narrow",
    ]
    assert compare(case, 2, seed=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["swift", "vdsr"])
def test_winograd_has_the_same_bits(name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert compare(miniature(name, 16), 2, seed=9, algorithms="winograd_4x4")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("gated", [["2"], ["1", "3"]])
def test_gated_layers_keep_whole_maps(gated):
    """A gate leaves tiles of a block out, so what it writes has to last; and it sees all of what its layer reads."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 1), *[nn.Conv2d(6, 6, 3, padding=1) for _ in range(6)]).eval()
    frames, plans = torch.rand(6, 1, 3, 40, 56), []
    for kept in (False, True):
        with rims(kept):
            plans.append(sparseblock.compile(network, frames[0], 8, algorithms="direct", gates=gated))
    assert any(spec.rims for spec in plans[1]._specs)
    states = [plan.new_state() for plan in plans]
    generator = torch.Generator().manual_seed(1)
    for i, frame in enumerate(frames):
        mask = torch.rand(1, plans[0].grid.rows, plans[0].grid.cols, generator=generator) < 0.5 if i else None
        opened = {name: torch.rand(1, 10, 14, generator=generator) < 0.5 for name in gated}
        gates = {name: BlockSet.from_mask(opened[name], 4) for name in gated} if i else {}
        for state in states:
            state._shared.fill_(255)  # NaN
        without, with_rims = (p(frame, mask, s, gates=gates) for p, s in zip(plans, states, strict=True))
        assert torch.equal(without, with_rims)


class Seeing:
    """A gate that opens everything, and remembers the map that it was shown."""

    tile = 4

    def __call__(self, layer: GatedLayer) -> torch.Tensor:
        self.x = layer.x.clone()
        n, _, h, w = layer.x.shape
        return torch.ones(n, -(-h // self.tile), -(-w // self.tile), dtype=torch.bool)


def test_a_gate_sees_the_whole_map():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 1), *[nn.Conv2d(6, 6, 3, padding=1) for _ in range(6)]).eval()
    frame, seen = torch.rand(1, 3, 40, 56), []
    mask = torch.zeros(1, 5, 7, dtype=torch.bool)
    mask[0, 2, 3] = True
    for kept in (False, True):
        with rims(kept):
            plan = sparseblock.compile(network, frame, 8, algorithms="direct", gates=["2"])
        state, gate = plan.new_state(), Seeing()
        plan(frame, None, state)
        state._shared.fill_(255)  # NaN
        plan(frame + 1, mask, state, gates={"2": gate})
        seen.append(gate.x)
    assert torch.equal(*seen)


class Passed(nn.Module):
    """The first value of a chain is read with a halo outside of it too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.point = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Conv2d(4, 4, 1)
        self.halo, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wide(self.stem(x))
        return self.head(self.halo(y) + torch.relu(self.point(self.point(y))))


def test_every_value_of_a_chain_keeps_its_rims():
    case = Case(Passed().eval(), (3, 96, 128), 32)
    plan = compiled(case, True)
    chained = {name for chain in plan._chains for name in list(chain.pieces)[:-1]}
    assert chained & {spec.name for spec in plan._specs if spec.rims}
    assert compare(case, 1, seed=11)


@pytest.mark.parametrize("name", MINIATURES)
def test_miniature_is_the_dense_network(name):
    with rims(True):
        check(miniature(name), 2, random_masks(miniature(name), 2, seed=3), deep=True)


WINDOWS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (1, 5), "padding": (0, 2)},
    {"kernel_size": (5, 1), "padding": (4, 0)},
    {"kernel_size": 2},
    {"kernel_size": (2, 1)},
    {"kernel_size": 7, "padding": 3, "stride": 2},
    {"kernel_size": 3, "padding": 8, "dilation": 8},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
]


@pytest.mark.parametrize("size", [(33, 47), (17, 130)])
@pytest.mark.parametrize("window", WINDOWS)
def test_any_window_and_size(window, size):
    """Halos on one side only, along one axis only, with and without a border, up to a whole block."""
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, **window), nn.Conv2d(4, 4, 1)).eval()
    for block in (8, 16):
        assert compare(Case(network, (3, *size), block), 2, seed=7)


def test_a_narrow_rim_is_noticed(monkeypatch):
    wide = assignment.halo
    monkeypatch.setattr(assignment, "halo", lambda *of: tuple(max(0, side - 1) for side in wide(*of)))
    case = Case(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 5, padding=2)).eval(), (3, 32, 48), 8)
    with pytest.raises(AssertionError):
        compare(case, 1, seed=7)


def test_states_take_rims_along():
    """A saved state, and a fork, go on as the state itself."""
    case = miniature("vdsr")
    plan = compiled(case, True)
    assert any(spec.rims for spec in plan._specs)
    state, other = plan.new_state(), plan.new_state()
    plan(case.frames(), None, state)
    other.load_state_dict(state.state_dict())
    frame, mask = case.frames(), random_masks(case, 1, seed=5)[2]
    states = (state, other, state.fork())
    for each in states:
        each._shared.fill_(255)  # NaN
    first, *rest = (plan(frame, mask, each).clone() for each in states)
    assert all(torch.equal(first, out) for out in rest)


def test_what_rims_take():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 2, 1)
    ).eval()
    frame = torch.rand(1, 3, 128, 256)
    plan = sparseblock.compile(network, frame, 64)
    specs = by_origin(plan.graph, {spec.name: spec for spec in plan._specs})
    assert specs["0"].rims.halo == (2, 2, 2, 2)
    assert specs["1"].rims.halo == (1, 1, 1, 1)
    assert (specs["2"].rims, specs["3"].rims) == (None, None)
    nodes = {node.name: node for node in plan.report().nodes}
    assert nodes["0"].memory == "rims"
    assert nodes["0"].bytes == 4 * 8 * (2 * 4 * 256 + 4 * 4 * 128)
    lasting = sum(node.bytes for node in nodes.values() if node.memory in ("plane", "rims"))
    assert plan.report().plane_bytes == lasting == plan.new_state().nbytes - plan.report().shared_bytes


def test_no_rims_where_they_save_nothing():
    """Maps that are there at the same time take the same in shared memory as in planes of their own."""
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)).eval()
    _, specs = planes(network, torch.rand(1, 8, 128, 128), 64)
    assert not any(spec.rims for spec in specs.values())


@pytest.mark.parametrize(("network", "at_most"), [("swiftnet-rn50", 390), ("vdsr", 700)])
def test_task_networks_at_full_size(network, at_most):
    """MiB of a stream. SwiftNet-RN50 took 825 with whole maps, VDSR 4300."""
    frame = torch.zeros(1, 3, 1024, 2048) if network != "vdsr" else torch.zeros(1, 1, 720, 1280)
    _, specs = planes(tasknets.load(network).model, frame, 128)
    assert total_bytes(tuple(specs.values())) / 2**20 < at_most
