"""Frames that change their size in mid-stream: refused, or each size has a plan and streams begin anew."""

from __future__ import annotations

import pickle
import re
import threading

import pytest
import torch
from miniatures import miniature
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.testing import assert_identical

SIZES = ((48, 64), (32, 80))


def frames(count: int, size: tuple[int, int], streams: int = 1) -> torch.Tensor:
    return torch.rand(count, streams, 3, *size, generator=torch.Generator().manual_seed(sum(size)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return miniature("swift").network


def test_by_default_another_size_is_refused(network):
    plan = sparseblock.compile(network, frames(1, SIZES[0])[0], block_size=16)
    message = "plan: frame is [1, 3, 32, 80]; this plan and state take [1, 3, 48, 64] [n, c, h, w]: compile a plan"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}"):
        plan(frames(1, SIZES[1])[0], None, plan.new_state())


def test_its_report_is_that_of_the_example_and_tools_want_one_size(network):
    frame = frames(1, SIZES[0])[0]
    plan = sparseblock.compile(network, frame, block_size=16, on_resize="reset", algorithms="direct")
    assert plan.report() == plan.at(frame).report()
    for name, call in (("verify", sparseblock.verify), ("calibrate", sparseblock.calibrate)):
        with pytest.raises(
            SparseBlockError, match=f"^{name}: plan is a ResizablePlan, which has a plan for each frame"
        ):
            call(plan, [frame, frame], *[0.1] * (name == "calibrate"))
    with pytest.raises(SparseBlockError, match=r"^explain: plan is a ResizablePlan, .* give it the one of plan\.at"):
        sparseblock.explain(plan)


@pytest.mark.parametrize("mode", [{"block_size": 16}, {"mode": "exact", "whole_from": 1.0}])
def test_streams_begin_anew_where_the_size_changes(network, mode):
    first, other = (sparseblock.compile(network, frames(1, size)[0], **mode) for size in SIZES)
    plan = sparseblock.compile(network, frames(1, SIZES[0])[0], **mode, on_resize="reset")
    for parameter in network.parameters():
        parameter.data.zero_()  # later changes to the model reach no plan, not even one that is made later
    state = plan.new_state(2)
    mask = None if "mode" in mode else torch.rand(2, first.grid.rows, first.grid.cols) < 0.5
    assert state.grid == first.grid and state.nbytes == first.new_state(2).nbytes
    for own, size in ((first, SIZES[0]), (other, SIZES[1]), (first, SIZES[0])):
        expected = own.new_state(2)
        video = frames(2, size, streams=2)
        assert_identical(plan(video[0], None if size == SIZES[0] else mask, state), own(video[0], None, expected))
        assert state.frames == [1, 1] and state.grid == own.grid
        fits = mask if size == SIZES[0] else None
        assert_identical(plan(video[1], fits, state), own(video[1], fits, expected))
        assert state.frames == [2, 2]


def test_a_frame_that_does_not_fit_leaves_the_state_as_it_was(network):
    plan = sparseblock.compile(network, frames(1, SIZES[0])[0], block_size=16, on_resize="reset")
    state, video = plan.new_state(), frames(2, SIZES[0])
    plan(video[0], None, state)
    fork = state.fork()
    for bad in (frames(1, SIZES[1], streams=2)[0], torch.rand(1, 5, 48, 64), torch.rand(1, 3, 32, 80).double(), None):
        with pytest.raises(SparseBlockError, match=r"^(plan|compile): "):
            plan(bad, None, state)
    mask = torch.rand(1, 3, 4) < 0.5
    assert state.frames == [1] and torch.equal(plan(video[1], mask, state), plan(video[1], mask, fork))


def test_a_state_of_another_plan_is_refused(network):
    """It would begin anew at every call, as where the size changes."""
    frame = frames(1, SIZES[0])[0]
    plan, other = (sparseblock.compile(network, frame, block_size=16, on_resize="reset") for _ in range(2))
    state = other.new_state()
    with pytest.raises(SparseBlockError, match=r"^plan: state is not of this plan; make it with plan\.new_state"):
        plan(frame, None, state)
    other(frame, None, state)
    assert state.frames == [1]


def test_states_of_a_size_are_loaded_at_that_size(network):
    plan = sparseblock.compile(network, frames(1, SIZES[0])[0], block_size=16, on_resize="reset")
    state, video = plan.new_state(), frames(2, SIZES[1])
    plan(video[0], None, state)
    with pytest.raises(SparseBlockError, match=r"^FeatureCache: plane .* here; load what a state of the same"):
        plan.new_state().load_state_dict(state.state_dict())
    loaded = plan.new_state(frame=video[0])
    loaded.load_state_dict(state.state_dict())
    mask = torch.rand(1, state.grid.rows, state.grid.cols) < 0.5
    assert torch.equal(plan(video[1], mask, loaded), plan(video[1], mask, state))
    with pytest.raises(SparseBlockError, match=r"^plan: with on_resize it holds a copy of the model"):
        pickle.dumps(plan)


def test_threads_that_resize_at_once_share_the_plans(network):
    plan = sparseblock.compile(network, frames(1, SIZES[0])[0], block_size=16, on_resize="reset")
    made = []

    def work():
        state = plan.new_state()
        for size in SIZES:
            plan(frames(1, size)[0], None, state)
        made.append(state.plan)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4 and all(other is made[0] for other in made)


def test_a_new_size_holds_up_no_stream_of_a_known_one(network):
    known, new = (frames(1, size)[0] for size in SIZES)
    plan = sparseblock.compile(network, known, block_size=16, on_resize="reset")
    state, make, outs = plan.new_state(), plan._make, []

    def slow(frame):
        other = threading.Thread(target=lambda: outs.append(plan(known, None, state)), daemon=True)
        other.start()
        other.join(60)  # for ever, did it wait for this size
        return make(frame)

    plan._make = slow
    own = plan.at(new)
    assert len(outs) == 1 and own.grid != state.grid


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        y = self.backbone(x)
        return y[y > 0.1]


def test_a_plan_in_parts_resizes_too():
    torch.manual_seed(0)
    network = Detector().eval()
    plan = sparseblock.compile(network, frames(1, SIZES[0])[0], 16, parts=["backbone"], on_resize="reset")
    state = plan.new_state()
    for size in SIZES:
        frame = frames(1, size)[0]
        assert plan(frame, None, state).numel() == int((network.backbone(frame) > 0.1).sum())
    assert state.grid == plan.at(frame).grid


def test_what_cannot_be_resized_is_refused(network):
    example = frames(1, SIZES[0])[0]
    with pytest.raises(SparseBlockError, match=r'^compile: on_resize is \'keep\'; it must be "error" or "reset"$'):
        sparseblock.compile(network, example, on_resize="keep")
    network.lock = threading.Lock()
    with pytest.raises(SparseBlockError, match=r'^compile: on_resize is "reset", but .* cannot be copied \(Type'):
        sparseblock.compile(network, example, on_resize="reset")
    plan = sparseblock.compile(Detector().eval(), example, 16, parts=["backbone"], on_resize="reset")
    with pytest.raises(SparseBlockError, match=r"^plan: state is not of this plan; make it with plan.new_state\(\)$"):
        plan(example, None, plan.at(example).new_state())
