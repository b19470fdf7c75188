"""Exact plans give the dense network's outputs at every frame, bounded ones what their tolerance allows."""

from __future__ import annotations

import copy
import re
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from error_bound import ErrorBound, assert_within
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import MINIATURES, miniature
from networks import Case, cases
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan import placement, whole
from sparseblock.plan.compile import trace
from sparseblock.plan.torch_call import TorchCall
from sparseblock.testing import assert_identical


def clip(case: Case, frames: int, streams: int = 1, seed: int = 0) -> list[torch.Tensor]:
    """A first frame, and others in which a small rectangle of one stream changes."""
    generator = torch.Generator().manual_seed(seed)
    c, h, w = case.frame
    shown = [torch.randn(streams, c, h, w, generator=generator)]
    for _ in range(frames - 1):
        frame = shown[-1].clone()
        stream, y, x, tall, wide = (
            int(torch.randint(0, limit, (), generator=generator)) for limit in (streams, h, w, 5, 5)
        )
        part = frame[stream, :, y : y + tall, x : x + wide]
        part.copy_(torch.randn(part.shape, generator=generator))
        shown.append(frame)
    return shown


def exact(case: Case, tolerance=None, whole_from=1.0):
    return sparseblock.compile(case.network, case.frames(), mode="exact", tolerance=tolerance, whole_from=whole_from)


@settings(max_examples=25)
@given(cases(), st.integers(1, 2), st.sampled_from([0.0, 0.05, 1.0]), st.integers(0, 2**16))
def test_random_network_is_the_dense_one_at_every_frame(case, streams, whole_from, seed):
    plan = exact(case, whole_from=whole_from)
    graph, _ = trace(case.network, case.frames())
    dense = copy.deepcopy(case.network).double()
    state = plan.new_state(streams)
    for frame in clip(case, 4, streams, seed):
        leaves = pytree.tree_leaves(plan(frame, None, state))
        whole = pytree.tree_leaves(plan(frame, None, plan.new_state(streams)))
        for stream in range(streams):
            image = frame[stream : stream + 1]
            reference = ErrorBound(graph, None)
            reference(image, None)
            with torch.no_grad():
                expected = pytree.tree_leaves(dense(image.double()))
            for leaf, value, bound in zip(leaves, expected, reference.bounds(), strict=True):
                assert_within(leaf[stream : stream + 1], value, bound)
        for leaf, value in zip(leaves, whole, strict=True):
            assert_identical(leaf, value)


@settings(max_examples=25)
@given(cases(longest=5), st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([0.05, 1.0]), st.integers(0, 2**16))
def test_random_bounded_network_is_within_its_tolerance_layer_by_layer(case, tolerance, whole_from, seed):
    report = sparseblock.verify(exact(case, tolerance, whole_from), clip(case, 4, seed=seed))
    assert report, str(report)


@pytest.mark.parametrize("tolerance", [None, 0.0, 0.05])
@pytest.mark.parametrize("name", MINIATURES)
def test_miniature(name, tolerance):
    case = miniature(name)
    report = sparseblock.verify(exact(case, tolerance), clip(case, 6))
    assert report, str(report)
    assert report.macs < 0.95


def test_outputs_do_not_depend_on_how_a_map_is_cut_into_tiles(monkeypatch):
    """The same bits in tiles of 2, 3 and 64 pixels."""
    for name in ("pyramid", "swift"):
        case = miniature(name)
        frames = clip(case, 2)
        results = []
        for tile in (2, 3, 64):
            monkeypatch.setattr(placement, "TILE", tile)
            monkeypatch.setattr(placement, "HEAVY_TILE", tile)
            plan = exact(case)
            state = plan.new_state()
            results.append([plan(frame, None, state).clone() for frame in frames])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert_identical(a, b)


def test_threads_do_not_change_the_result():
    case = miniature("pyramid")
    frames = clip(case, 5)
    for tolerance in (None, 0.05):
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            plan = exact(case, tolerance)
            state = plan.new_state()
            results.append([plan(frame, None, state).clone() for frame in frames])
        torch.set_num_threads(1)
        for a, b in zip(*results, strict=True):
            assert_identical(a, b)


def test_a_slow_change_is_passed_on_once_it_is_large_enough():
    """Steps of a tenth of the tolerance: an error that accumulated would grow with them."""
    case = Case(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).eval(), (1, 12, 12), 4
    )
    plan = exact(case, 0.1)
    frame = torch.rand(1, 1, 12, 12)
    report = sparseblock.verify(plan, [frame + 0.01 * step for step in range(60)])
    assert report, str(report)
    gain = float(sum(m.weight.detach().abs().sum() for m in case.network if isinstance(m, nn.Conv2d)))
    assert report.layers[-1].error < 0.1 * (1 + gain) ** 2
    state, dropped, taken = plan.new_state(), 0, 0
    for step in range(60):
        plan(frame + 0.01 * step, None, state)
        stats = plan.stats(state)
        taken += stats.changed
        dropped = max(dropped, *(node.dropped for node in stats.nodes))
    # A pixel is taken up every ten or eleven steps; shares of pixels are rounded, a millionth in sum at the most.
    assert 0 < dropped < 0.1 and 1 + 5 - 1e-6 <= taken <= 1 + 6 + 1e-6


def test_the_same_frame_runs_nothing():
    case = miniature("pyramid")
    plan = exact(case)
    state = plan.new_state()
    frame = case.frames()
    before = plan(frame, None, state).clone()
    assert plan.stats(state).macs == plan.macs
    assert_identical(plan(frame.to(memory_format=torch.channels_last), None, state), before)
    assert plan.stats(state).macs == 0 and plan.stats(state).changed == 0


def test_nan_is_no_change_and_the_sign_of_zero_is_one():
    case = Case(nn.Conv2d(1, 1, 1, bias=False).eval(), (1, 8, 8), 8)
    plan = exact(case)
    state = plan.new_state()
    frame = torch.zeros(1, 1, 8, 8)
    frame[..., 0, 0] = torch.nan
    plan(frame, None, state)
    plan(frame, None, state)
    assert plan.stats(state).changed == 0
    frame[..., 5, 5] = -0.0
    out = plan(frame, None, state)
    assert plan.stats(state).changed == 1 / 64
    assert_identical(out, plan(frame, None, plan.new_state()))


def test_streams_and_resets_are_apart():
    case = miniature("swift")
    plan = exact(case)
    state = plan.new_state(2)
    frames = clip(case, 3, streams=2)
    for frame in frames:
        plan(frame, None, state)
    state.reset(0)
    both = frames[-1].clone()
    both[1, :, :2, :2] = 0
    out = plan(both, None, state)
    for stream in range(2):
        assert_identical(out[stream : stream + 1], plan(both[stream : stream + 1], None, plan.new_state()))


def test_torch_runs_only_for_streams_whose_inputs_changed():
    calls = []

    def sorted_rows(x):
        return x.sort(-1).values

    class Counting(nn.Module):
        def forward(self, x):
            left, right = x.split([4, 4], 3)
            return sorted_rows(left * 2), sorted_rows(right.contiguous() * 2)

    plan = sparseblock.compile(Counting().eval(), torch.rand(1, 2, 8, 8), mode="exact", whole_from=1.0)
    for segment in plan._segments:
        if hasattr(segment, "node"):
            run = segment.run
            segment.run = lambda state, held, streams, run=run, name=segment.node.label: (
                calls.append((name, list(streams))),
                run(state, held, streams),
            )
    state = plan.new_state(2)
    frame = torch.rand(2, 2, 8, 8)
    plan(frame, None, state)
    assert {tuple(streams) for _, streams in calls} == {(0, 1)}
    calls.clear()
    frame = frame.clone()
    frame[1, 0, 0, 0] = 3.0
    out = plan(frame, None, state)
    assert {tuple(streams) for _, streams in calls} == {(1,)}
    for a, b in zip(out, Counting()(frame), strict=True):
        assert_identical(a, b)


def test_channels_of_a_concatenation_change_apart():
    """Who reads a slice is not touched by a change in the other channels."""

    class Branches(nn.Module):
        def forward(self, x):
            both = torch.cat([x[:, :1] * 2, x[:, 1:] * 3], 1)
            return F.relu(both[:, :1]), F.relu(both[:, 1:])

    plan = sparseblock.compile(Branches().eval(), torch.rand(1, 2, 8, 8), mode="exact", whole_from=1.0)
    state = plan.new_state()
    frame = torch.rand(1, 2, 8, 8)
    plan(frame, None, state)
    frame[0, 1, 0, 0] = 0.5
    out = plan(frame, None, state)
    for a, b in zip(out, Branches()(frame), strict=True):
        assert_identical(a, b)


def test_stats_count_what_runs():
    case = miniature("vdsr")
    plan = exact(case)
    state = plan.new_state()
    frame = case.frames()
    plan(frame, None, state)
    stats = plan.stats(state)
    assert stats.macs == stats.dense_macs == plan.macs and stats.changed == 1
    frame = frame.clone()
    frame[..., 16, 16] += 1
    plan(frame, None, state)
    stats = plan.stats(state)
    assert [node.computed for node in stats.nodes] == [1, 4, 4, 4, 9]  # pixels 16, 15..17, ..., 12..20 in tiles of 4
    assert 0 < stats.macs < plan.macs / 4
    assert "% of dense" in str(stats) and "body.2" in str(stats)


def test_tolerances_by_layer():
    case = miniature("vdsr")
    plan = exact(case, {"body.2": 0.5, "frame": 0.25})
    assert plan.tolerances["x"] == 0.25
    assert [t for t in plan.tolerances.values() if t >= 0] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "extract"}, "mode is 'extract'"),
        ({"tolerance": 0.1}, "mode is 'grid' and tolerance 0.1"),
        ({"mode": "exact", "tolerance": -1}, "every layer is -1"),
        ({"mode": "exact", "tolerance": float("nan")}, "every layer is nan"),
        ({"mode": "exact", "tolerance": {"body.9": 0.1}}, "'body.9', which is no layer"),
        ({"mode": "exact", "tolerance": {"body.2": "much"}}, "'body.2' is 'much'"),
        (
            {"mode": "exact", "tolerance": {"body.2": None}},
            "'body.2' is None; it must be a number of at least 0; what is to be compared with nothing has none: leave",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    case = miniature("vdsr")
    with pytest.raises(SparseBlockError, match=re.escape(message)):
        sparseblock.compile(case.network, case.frames(), **arguments)


class Turned(nn.Module):
    """A call to torch between two convolutions."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.b(self.a(x).mT.contiguous())


@pytest.mark.parametrize("whole_from", [0.0, 1.0])
def test_after_a_frame_that_broke_off_streams_begin_anew(whole_from, monkeypatch):
    """It is taken up already: compared with it, the next frame would not have changed, and old values would stay."""
    torch.manual_seed(0)
    frames = torch.rand(2, 2, 3, 16, 16)
    plan = sparseblock.compile(Turned().eval(), frames[0], mode="exact", whole_from=whole_from)
    state = plan.new_state(2)
    plan(frames[0], None, state)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TorchCall, "run", Mock(side_effect=KeyboardInterrupt))
        plan(frames[1], None, state)
    assert state.frames == [0, 0]
    assert_identical(plan(frames[1], None, state), plan(frames[1], None, plan.new_state(2)))


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        y = self.conv(x)
        return self.head(y.mean((2, 3))), y.argmax(1)


@pytest.mark.parametrize("streams", [1, 2])
def test_what_the_caller_writes_to_an_output_that_lies_in_no_plane_is_not_kept(streams):
    torch.manual_seed(0)
    frame = torch.rand(streams, 3, 16, 16)
    plan = sparseblock.compile(Scores().eval(), frame, mode="exact", whole_from=1.0)
    state = plan.new_state(streams)
    first = plan(frame, None, state)
    expected = [out.clone() for out in first]
    for out in first:
        out.zero_()
    for out, right in zip(plan(frame, None, state), expected, strict=True):
        assert_identical(out, right)


def test_stats_are_of_a_state_of_the_plan():
    case = miniature("vdsr")
    plan, other = exact(case), sparseblock.compile(case.network, case.frames(), 16)
    for state in (other.new_state(), exact(case).new_state(), None):
        with pytest.raises(SparseBlockError, match=r"^plan: state is not of this plan; make it with plan\.new_state"):
            plan.stats(state)


def test_an_exact_plan_takes_no_blocks():
    case = miniature("vdsr")
    plan = exact(case)
    with pytest.raises(SparseBlockError, match="finds what to compute by itself"):
        plan(case.frames(), torch.ones(1, 1, 1, dtype=torch.bool), plan.new_state())


def test_from_its_share_of_changed_tiles_on_a_frame_runs_whole():
    """Below it tile by tile, with the same bits; and of a bounded plan nothing is held back."""
    case = miniature("swift")
    c, h, w = case.frame
    plans = [exact(case, tolerance, 0.5) for tolerance in (None, 1e-9)]
    for plan in plans:
        state, frame = plan.new_state(), torch.empty(1, c, h, w)
        for rows, is_whole in ((h, True), (h // 4, False), (0, False), (3 * h // 4, True), (h // 4, False)):
            frame[:, :, :rows] = torch.rand(1, c, rows, w)
            out = plan(frame, None, state)
            assert_identical(out, plan(frame, None, plan.new_state()))
            stats = plan.stats(state)
            assert state.ran_whole == is_whole and (stats.macs == plan.macs) == is_whole
            assert stats.changed == pytest.approx(rows / h)
            assert all(node.computed > 0 for node in stats.nodes) == (rows > 0)


def test_whether_a_stream_runs_whole_does_not_depend_on_the_others():
    """A bounded plan's outputs show it: what runs whole holds nothing back."""
    case = miniature("swift")
    plan = exact(case, 0.05, 0.5)
    together, alone = plan.new_state(2), [plan.new_state(), plan.new_state()]
    frames = clip(case, 4, streams=2)
    frames[2] = frames[2].clone()
    frames[2][0] = torch.rand(case.frame)
    for frame in frames:
        frame = frame + 0.01 * torch.rand(frame.shape)
        both = plan(frame, None, together)
        for stream, state in enumerate(alone):
            assert_identical(both[stream : stream + 1], plan(frame[stream : stream + 1], None, state))


def test_the_share_is_measured_and_reported():
    case = miniature("swift")
    plan = exact(case, whole_from=None)
    choice = plan.report().whole
    assert choice is plan.whole and 0 < choice.share <= 1 and choice.seconds > 0
    assert [share for share, _ in choice.measured] == [0.5, 0.25, 0.125, 0.0625, 0.03125][: len(choice.measured)]
    assert "% or more of the tiles changed run whole: whole takes" in str(plan.report())
    assert plan.report().to_dict()["whole"]["share"] == choice.share
    assert str(exact(case, whole_from=0.25).report()).endswith("25 % or more of the tiles changed run whole: given")


def test_tolerances_are_in_the_report():
    case = miniature("swift")
    layer = next(node.name for node in exact(case).report().nodes if node.op.startswith("conv2d"))
    nodes = exact(case, {layer: 0.125}).report().nodes
    assert {node.name for node in nodes if node.reason == "tolerance 0.125"} == {layer}
    assert not any("tolerance" in node.reason for node in nodes if node.name != layer)


def test_the_measured_share_follows_the_times(monkeypatch):
    """Times by a rule: tile by tile takes twice the share of a whole frame's second."""
    clock, log = [0.0], []
    monkeypatch.setattr(whole.time, "perf_counter", lambda: clock[0])

    def run(frame, whole_from):
        changed = float((frame != before[0]).float().mean())
        before[0] = frame.clone()
        clock[0] += 1.0 if whole_from == 0.0 else 2 * changed * 1.5
        log.append((changed, whole_from))

    before = [torch.zeros(1, 3, 256, 256)]
    choice = whole.measure(run, (1, 3, 256, 256))
    assert choice == whole.WholeChoice(0.5, 1.0, ((0.5, 1.5), (0.25, 0.75)))
    whole_frame, tiles = (1.0, 0.0), float("inf")
    assert log == [whole_frame, whole_frame, (0.5, tiles), whole_frame, (0.25, tiles), whole_frame]


@pytest.mark.parametrize("whole_from", [-0.1, 1.5, True, "all"])
def test_a_share_is_a_share(whole_from):
    with pytest.raises(SparseBlockError, match=f"^compile: whole_from is {whole_from!r}; it must be a share"):
        exact(miniature("swift"), whole_from=whole_from)
    with pytest.raises(
        SparseBlockError, match=r"^compile: whole_from is 0.5 with mode 'grid'; it is for mode \"exact\"$"
    ):
        sparseblock.compile(miniature("swift").network, torch.rand(1, 3, 32, 32), whole_from=0.5)
