"""Chains: which nodes form them, where their values lie, and that they change no bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import MINIATURES, miniature
from networks import Case, cases
from test_plan_planes import FRAME
from test_random_networks import random_masks
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock.plan import Plan, chains, plan
from sparseblock.testing import assert_identical


def make_pieces_tiny(monkeypatch):
    """Pieces as small as can be: the miniatures' blocks are cut into many."""
    monkeypatch.setattr(chains, "CACHE_BYTES", 1 << 12)
    monkeypatch.setattr(chains, "LEAST_PIXELS", 1)
    monkeypatch.setattr(chains, "MOST_MACS", 1000)


@pytest.fixture
def tiny_pieces(monkeypatch):
    make_pieces_tiny(monkeypatch)


def unfused(case: Case, algorithms: dict[str, str] | None = None, dtype: torch.dtype = torch.float32) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "find_chains", lambda *_: ())
        return sparseblock.compile(case.network, case.frames(), case.block, dtype=dtype, algorithms=algorithms)


def check_bits(
    case: Case, streams: int, seed: int, algorithms: str | None = None, dtype: torch.dtype = torch.float32
) -> Plan:
    """Fused and unfused, over whole and partial frames, in one thread and in three."""
    fused = sparseblock.compile(case.network, case.frames(), case.block, dtype=dtype, algorithms=algorithms)
    plain = unfused(case, fused.algorithms, dtype)
    states = [fused.new_state(streams), fused.new_state(streams), plain.new_state(streams)]
    for mask in (None, *random_masks(case, streams, seed)):
        frame = case.frames(streams)
        expected = pytree.tree_leaves(plain(frame, mask, states[2]))
        for state, threads in zip(states, (1, 3), strict=False):
            torch.set_num_threads(threads)
            for leaf, value in zip(pytree.tree_leaves(fused(frame, mask, state)), expected, strict=True):
                assert_identical(leaf, value)
    return fused


@pytest.mark.parametrize("name", MINIATURES)
def test_miniatures_have_the_same_bits(name, tiny_pieces):
    fused = check_bits(miniature(name), 2, seed=0)
    assert (fused.report().chains > 0) == (name not in ("vdsr", "context")), "these two read everything with a halo"


@settings(max_examples=40)
@given(cases(longest=12), st.integers(0, 2**16))
def test_random_networks_have_the_same_bits(case, seed):
    with pytest.MonkeyPatch.context() as patch:
        make_pieces_tiny(patch)
        check_bits(case, 1, seed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_take_half_the_scratch_and_have_the_same_bits(dtype, tiny_pieces):
    case = miniature("bottlenecks")
    fused = check_bits(case, 1, 0, dtype=dtype)
    kept = [(spec.name, spec.dtype) for spec in fused._specs if spec.scratch is not None]
    assert kept and all(stored == dtype for _, stored in kept)
    sizes = {node.name: node.bytes for node in fused.report().nodes if node.memory == "scratch"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "CACHE_BYTES", 2 * chains.CACHE_BYTES)  # pieces as large
        whole = sparseblock.compile(case.network, case.frames(), case.block).report()
    assert sizes == {node.name: node.bytes // 2 for node in whole.nodes if node.memory == "scratch"}


class Attention(nn.Module):
    """A map times one of a value a channel, made beside it, and times one of a value a pixel, made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.look, self.head = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = torch.sigmoid(self.squeeze(torch.mean(x, (2, 3), keepdim=True)))
        y = self.deep(torch.relu(self.stem(x))) * channels
        return self.head(y * torch.sigmoid(self.look(y)))


def test_second_inputs_that_count_for_many_pixels_or_channels(tiny_pieces):
    torch.manual_seed(0)
    fused = check_bits(Case(Attention().eval(), (3, 36, 44), 16), 2, seed=0)
    assert [node.name for node in fused.report().nodes if node.chain == 1][:2] == ["stem", "deep"]


def origins(network: nn.Module, block: int = 8, **options) -> list[list[str]]:
    """The modules of each chain."""
    report = sparseblock.compile(network.eval(), FRAME, block, **options).report()
    return [[node.name for node in report.nodes if node.chain == i + 1] for i in range(report.chains)]


def test_a_chain_ends_where_a_halo_is_read(tiny_pieces):
    conv = lambda c, k, r, **more: nn.Conv2d(c, k, r, padding=r // 2, **more)  # noqa: E731
    network = nn.Sequential(conv(3, 4, 3), conv(4, 4, 1), nn.MaxPool2d(2), conv(4, 4, 3, groups=4), conv(4, 6, 1))
    assert origins(network) == [["0", "1", "2"], ["3", "4"]]


def test_what_reads_nothing_of_a_chain_is_not_in_it(tiny_pieces):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
            self.c, self.d = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            a, c = self.b(self.a(x)), self.d(self.c(x))
            return a, c

    assert origins(Branches()) == [["a", "b"], ["c", "d"]]


def test_winograd_and_other_padding_than_zeros_are_no_part_of_a_chain(tiny_pieces):
    conv = lambda **more: nn.Conv2d(3, 4, 3, padding=1, **more)  # noqa: E731
    assert origins(nn.Sequential(conv(), nn.Conv2d(4, 4, 1)), algorithms="direct") == [["0", "1"]]
    assert origins(nn.Sequential(conv(), nn.Conv2d(4, 4, 1)), algorithms="winograd_2x2") == []
    assert origins(nn.Sequential(conv(padding_mode="reflect"), nn.Conv2d(4, 4, 1))) == []


def test_gated_layers_are_no_part_of_a_chain(tiny_pieces):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    assert origins(network) == [["0", "1", "2", "3"]]
    assert origins(network, gates=("2",)) == [["0", "1"]]


def test_exact_plans_have_no_chains(tiny_pieces):
    assert origins(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)), mode="exact") == []


def test_small_pieces_are_no_chain():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
    assert origins(network, block=8) == [] and origins(network, block=16) == [["0", "1"]]


def test_much_arithmetic_is_no_chain():
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 128, 1), nn.Conv2d(128, 128, 1))
    assert origins(network, block=16) == []
    network[2] = nn.Conv2d(128, 8, 1)
    assert origins(network, block=16) == [["0", "1", "2"]]


def test_pieces_are_equal_parts_of_a_block_that_fit_the_cache():
    network = nn.Sequential(nn.Conv2d(3, 61, 3, padding=1), nn.Conv2d(61, 64, 1), nn.MaxPool2d(2)).eval()
    (chain,) = sparseblock.compile(network, torch.randn(1, 3, 256, 256), 128)._chains
    # A row of 64 pooled pixels takes 64 channels of float32, and 4 times 3 + 61 + 64: 147456 bytes. Half a MiB holds
    # three rows; the block of 64 rows divides by two.
    assert list(chain.pieces.values()) == [(4, 128), (4, 128), (2, 64)]


def test_what_only_a_chain_touches_has_no_memory_in_the_state(tiny_pieces):
    case = miniature("bottlenecks")
    fused = sparseblock.compile(case.network, case.frames(), case.block)
    report, plain = fused.report(), unfused(case).report()
    inner = [node for node in report.nodes if node.memory == "scratch"]
    assert inner and all(node.chain is not None and node.bytes > 0 for node in inner)
    assert report.shared_bytes < plain.shared_bytes and report.scratch_bytes <= 2 * max(node.bytes for node in inner)
    assert plain.scratch_bytes == 0 and report.plane_bytes == plain.plane_bytes
    assert fused.new_state().nbytes == report.shared_bytes + report.plane_bytes


def test_profile_divides_the_time_of_a_chain(tiny_pieces):
    case = miniature("bottlenecks")
    fused = sparseblock.compile(case.network, case.frames(), case.block)
    state = fused.new_state()
    fused(case.frames(), None, state)
    times = dict(fused.profile(case.frames(), None, state))
    assert all(seconds > 0 for seconds in times.values())
    assert len(times) == sum(node.kernel != "" for node in fused.report().nodes)
