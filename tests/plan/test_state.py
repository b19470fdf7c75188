"""States: several streams, saving and loading, forks, and one plan in several threads."""

from __future__ import annotations

import copy
import io
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

PLANS = {"grid": {"block_size": 16}, "exact": {"mode": "exact", "whole_from": 1.0}}


def compiled(mode: str, streams: int = 1):
    """A plan, a state that has seen two frames, a third frame, and blocks for it."""
    torch.manual_seed(0)
    case = miniature("swift")
    plan = sparseblock.compile(case.network, case.frames(), **PLANS[mode])
    state = plan.new_state(streams)
    frames = [torch.cat([case.frames() for _ in range(streams)]) for _ in range(3)]
    mask = None
    if mode == "grid":
        mask = torch.rand(streams, plan.grid.rows, plan.grid.cols) < 0.5
    plan(frames[0], None, state)
    plan(frames[1], mask, state)
    return plan, state, frames[2], mask


def outputs(plan, frame, mask, state) -> torch.Tensor:
    return plan(frame, mask, state).clone()


@pytest.mark.parametrize("mode", PLANS)
@pytest.mark.parametrize("streams", [1, 2])
def test_a_loaded_state_goes_on_where_the_other_was(mode, streams):
    plan, state, frame, mask = compiled(mode, streams)
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    other = plan.new_state(streams)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.frames == state.frames
    assert_identical(outputs(plan, frame, mask, other), outputs(plan, frame, mask, state))


@pytest.mark.parametrize("mode", PLANS)
def test_a_fork_leaves_its_origin_alone(mode):
    plan, state, frame, mask = compiled(mode)
    fork, before = state.fork(), state.state_dict()
    outputs(plan, torch.rand_like(frame), mask, fork)
    after = state.state_dict()
    assert after["frames"] == before["frames"]
    for name, plane in before["planes"].items():
        assert_identical(after["planes"][name], plane)
    assert_identical(outputs(plan, frame, mask, state.fork()), outputs(plan, frame, mask, state))


def test_a_state_dict_is_of_its_own():
    plan, state, frame, _ = compiled("grid")
    saved = state.state_dict()
    kept = {name: plane.clone() for name, plane in saved["planes"].items()}
    plan(frame, None, state)
    assert saved["frames"] == [2]
    for name, plane in kept.items():
        assert_identical(saved["planes"][name], plane)


def test_what_does_not_fit_is_refused_and_changes_nothing():
    _, state, _, _ = compiled("grid")
    saved, before = state.state_dict(), state.state_dict()
    name, plane = next(iter(saved["planes"].items()))
    wrong = {
        "state is list; it must be what state_dict gave, with frames, planes, gates": [],
        "state is a dict of 'frames'; it must be what state_dict gave, with frames, planes, gates": {"frames": [1]},
        "state is of 2 streams, but this one has 1; make it with new_state(2)": {**saved, "frames": [1, 1]},
        "frames is [-1]; it must be the number of frames that each stream has seen": {**saved, "frames": [-1]},
        f"plane {name!r} is in only one of the two states; load what a state of the same plan gave "
        "(which maps last, whole or as rims, goes with a plan's device and algorithms)": {
            **saved,
            "planes": {key: value for key, value in saved["planes"].items() if key != name},
        },
        f"plane {name!r} is torch.float64 {list(plane.shape)} but torch.float32 {list(plane.shape)} here; "
        "load what a state of the same plan gave": {**saved, "planes": {**saved["planes"], name: plane.double()}},
        f"plane {name!r} is torch.float32 {list(plane.shape)} on meta, torch.strided but torch.float32 "
        f"{list(plane.shape)} here; load what a state of the same plan gave": {
            **saved,
            "planes": {**saved["planes"], name: plane.to("meta")},
        },
        f"plane {name!r} is torch.float32 {list(plane.shape)} on cpu, torch.sparse_coo but torch.float32 "
        f"{list(plane.shape)} here; load what a state of the same plan gave": {
            **saved,
            "planes": {**saved["planes"], name: plane.to_sparse()},
        },
    }
    for message, given in wrong.items():
        with pytest.raises(SparseBlockError) as error:
            state.load_state_dict(given)
        assert str(error.value) == f"FeatureCache: {message}"
    after = state.state_dict()
    assert after["frames"] == before["frames"]
    for key, value in before["planes"].items():
        assert_identical(after["planes"][key], value)


@pytest.mark.parametrize("mode", PLANS)
def test_a_deep_copy_is_a_fork_and_a_pickle_is_refused(mode):
    plan, state, frame, mask = compiled(mode)
    fork = copy.deepcopy(state)
    assert_identical(outputs(plan, frame, mask, fork), outputs(plan, frame, mask, state))
    for refused in (copy.copy, pickle.dumps):
        with pytest.raises(
            SparseBlockError, match=r"Cache: it belongs to its plan, .* fork\(\) gives a state of its own"
        ):
            refused(state)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("last", None, "FeatureCache: last is NoneType but torch.float32 [1, 3, 37, 50] here"),
        (
            "last",
            torch.rand(1, 3, 36, 50),
            "FeatureCache: last is torch.float32 [1, 3, 36, 50] but torch.float32 [1, 3, 37",
        ),
        (
            "last",
            torch.empty(1, 3, 37, 50, device="meta"),
            "FeatureCache: last is torch.float32 [1, 3, 37, 50] on meta, torch.strided but torch.float32",
        ),
        ("last", torch.rand(1, 3, 37, 50).double(), "FeatureCache: last is torch.float64 [1, 3, 37, 50] but"),
        ("held", [], "FeatureCache: held is no list of 1 dicts; load what"),
        ("held", None, "FeatureCache: held is no list of 1 dicts; load what"),
        ("planes", None, "FeatureCache: planes is NoneType; it must be what state_dict gave"),
        ("gates", [], "FeatureCache: gates is list; it must be what state_dict gave"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(key, value, message):
    """A last frame of another size would be read beyond its end."""
    plan, state, frame, _ = compiled("exact")
    saved = state.state_dict()
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}"):
        state.load_state_dict({**saved, key: value})
    other = plan.new_state()
    other.load_state_dict(saved)
    assert_identical(outputs(plan, frame, None, state), outputs(plan, frame, None, other))


def test_a_last_frame_of_other_strides_is_taken_up():
    plan, state, frame, _ = compiled("exact")
    saved, other = state.state_dict(), plan.new_state()
    other.load_state_dict({**saved, "last": saved["last"].mT.contiguous().mT})
    assert_identical(outputs(plan, frame, None, other), outputs(plan, frame, None, state))


def test_a_reset_of_all_streams_empties_the_gates():
    _, state, _, _ = compiled("grid", streams=2)
    state.gates["stem"] = {"seen": torch.ones(2)}
    state.reset(1)
    assert state.gates.keys() == {"stem"} and state.frames == [2, 0]
    state.reset()
    assert not state.gates and state.frames == [0, 0]


@pytest.mark.parametrize("shared", [False, True])
def test_plans_are_made_in_several_threads(shared):
    """torch.export changes the weights of the model that it captures, and state of its own, while it does."""
    frame, plans = torch.rand(1, 3, 16, 16), {}

    def network() -> nn.Module:
        convolutions = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)]
        return nn.Sequential(*convolutions).eval()

    networks = [network()] * 4 if shared else [network() for _ in range(4)]

    def make(number: int) -> None:
        for _ in range(3):
            plans[number] = sparseblock.compile(networks[number], frame, block_size=8, algorithms="direct")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {type(plan) for plan in plans.values()} == {sparseblock.Plan} and len(plans) == 4
    for number, plan in plans.items():
        with torch.no_grad():
            torch.testing.assert_close(plan(frame, None, plan.new_state()), networks[number](frame))


def test_plans_and_states_live_where_they_were_made():
    torch.manual_seed(0)
    nested = sparseblock.compile(Parts().eval(), torch.rand(1, 3, 32, 32), block_size=16, parts=["backbone"])
    plan, state, _, _ = compiled("grid")
    for what, own in (("plan", plan), ("FeatureCache", state), ("plan", nested), ("FeatureCache", nested.new_state())):
        assert own.to("cpu") is own
        for device, message in (
            ("cuda:1", "to cuda:1, but its plan runs on cpu; compile the model for cuda:1, and let"),
            ("meta", "to meta, where tensors have no values and nothing runs; it stays on cpu"),
            ("gpu", "to 'gpu', which is no device of torch's"),
        ):
            with pytest.raises(SparseBlockError, match=f"^{what}: {message}"):
                own.to(device)


@pytest.mark.parametrize("mode", PLANS)
def test_one_plan_runs_in_several_threads_with_states_of_their_own(mode):
    plan, _, frame, _ = compiled(mode)
    frames = [torch.rand(6, *frame.shape, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    for video in frames:  # half of every frame but the first stands still
        video[..., : frame.shape[-1] // 2] = video[:1, ..., : frame.shape[-1] // 2]
    masks = torch.rand(6, 1, plan.grid.rows, plan.grid.cols) < 0.5
    masks[0] = True
    masks = list(masks) if mode == "grid" else [None] * 6

    def course(video):
        own = plan.new_state()
        return [outputs(plan, frame, mask, own) for frame, mask in zip(video, masks, strict=True)]

    expected = [course(video) for video in frames]
    found: list = [None] * len(frames)

    def work(number):
        found[number] = course(frames[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(expected, found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert_identical(b, a)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        y = self.backbone(x)
        return y[y > 0]


def test_the_state_of_parts_is_saved_and_forked():
    torch.manual_seed(0)
    plan = sparseblock.compile(Parts().eval(), torch.rand(1, 3, 32, 32), block_size=16, parts=["backbone"])
    state, frame = plan.new_state(), torch.rand(1, 3, 32, 32)
    plan(torch.rand(1, 3, 32, 32), None, state)
    mask = torch.tensor([[[True, False], [False, True]]])
    fork, loaded = state.fork(), plan.new_state()
    loaded.load_state_dict(state.state_dict())
    expected = plan(frame, mask, state).clone()
    assert_identical(plan(frame, mask, fork), expected)
    assert_identical(plan(frame, mask, loaded), expected)
    with pytest.raises(SparseBlockError, match="NestedState: state is of 2 streams, but this one has 1"):
        state.load_state_dict({**state.state_dict(), "frames": [1, 1]})
    before = state.state_dict()
    for pending in (None, torch.zeros(1, 2, 2), torch.zeros(1, 2, 3, dtype=torch.bool)):
        with pytest.raises(SparseBlockError, match=r"^NestedState: pending of 'backbone' is "):
            state.load_state_dict({**loaded.state_dict(), "frames": [7], "pending": {"backbone": pending}})
        assert state.frames == before["frames"] and torch.equal(
            state.pending["backbone"], before["pending"]["backbone"]
        )
