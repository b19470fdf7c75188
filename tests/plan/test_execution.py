"""Running a plan: views, masks, streams, structure, MACs, profile, and what it refuses."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from miniatures import MINIATURES, miniature
from networks import Call, cases
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock import BlockSet, SparseBlockError
from sparseblock.testing import assert_identical


def compiled(name="pyramid", block=16, streams=1):
    case = miniature(name, block)
    plan = sparseblock.compile(case.network, case.frames(), block)
    return case, plan, plan.new_state(streams)


@pytest.mark.parametrize("name", [name for name in MINIATURES if name != "detector"])  # its output is no map
def test_inactive_blocks_keep_their_bits(name):
    case, plan, state = compiled(name)
    before = plan(case.frames(), None, state).clone()
    mask = torch.zeros(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    mask[0, 1, 2] = True
    after = plan(case.frames(), mask, state)
    stride = case.frame[1] / before.shape[2]
    size = round(case.block / stride)
    active = torch.zeros_like(before, dtype=torch.bool)
    active[:, :, size : 2 * size, 2 * size : 3 * size] = True
    assert_identical(after, before, ~active)
    assert not torch.equal(after, before)


def test_no_active_block_changes_nothing():
    case, plan, state = compiled()
    before = plan(case.frames(), None, state).clone()
    none = torch.zeros(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    assert_identical(plan(case.frames(), none, state), before)
    assert state.frames == [2]


def test_the_same_frame_again_is_the_same():
    """Whatever is recomputed: a block's value does not depend on how often or along with what it is computed."""
    case, plan, state = compiled()
    frame = case.frames()
    before = plan(frame, None, state).clone()
    for seed in range(4):
        mask = torch.rand(1, plan.grid.rows, plan.grid.cols, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert_identical(plan(frame, mask, state), before)


@pytest.mark.parametrize("name", MINIATURES)
def test_threads_do_not_matter(name):
    case, plan, state = compiled(name)
    frame = case.frames()
    before = plan(frame, None, state).clone()
    torch.set_num_threads(3)
    assert_identical(plan(frame, None, plan.new_state()), before)


@pytest.mark.parametrize("name", MINIATURES)
def test_streams_are_independent(name):
    case, plan, state = compiled(name, streams=3)
    frames = case.frames(3)
    masks = torch.rand(3, plan.grid.rows, plan.grid.cols) < 0.5
    together = [plan(frames, None, state).clone(), plan(frames + 1, masks, state).clone()]
    for stream in range(3):
        alone = plan.new_state()
        one = slice(stream, stream + 1)
        assert_identical(plan(frames[one], None, alone), together[0][one])
        assert_identical(plan(frames[one] + 1, masks[one], alone), together[1][one])


def test_strides_of_the_frame_do_not_matter():
    case, plan, state = compiled()
    frame = case.frames()
    before = plan(frame, None, state).clone()
    wide = torch.randn(*frame.shape[:3], 2 * frame.shape[3])[..., ::2]
    wide.copy_(frame)
    for same in (frame.contiguous(memory_format=torch.channels_last), wide):
        assert_identical(plan(same, None, plan.new_state()), before)


def test_outputs_are_live_views_without_grad():
    case, plan, state = compiled()
    first = plan(case.frames().requires_grad_(), None, state)
    assert not first.requires_grad
    second = plan(case.frames(), None, state)
    assert first.data_ptr() == second.data_ptr()


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, lambda x: x.flatten(1)), (1, lambda x: x.squeeze(1)), (3, lambda x: x.mean((2, 3)))]
)
def test_an_output_that_is_no_map_is_the_callers_own(channels, shape):
    """Of one channel, or one pixel, a plane is contiguous as it lies: a view of it would change with the next frame."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), Call("shape", shape)).eval()
    frames = torch.rand(2, 1, 3, 16, 16)
    plan = sparseblock.compile(network, frames[0], block_size=8)
    state = plan.new_state()
    first = plan(frames[0], None, state)
    before = first.clone()
    plan(frames[1], None, state)
    assert_identical(first, before)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("mode", ["grid", "exact"])
def test_what_the_caller_writes_to_an_output_is_not_kept(mode, inference):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)).eval()
    frames = torch.rand(2, 2, 3, 16, 16)
    plan = sparseblock.compile(network, frames[0], block_size=8, mode=mode)
    mask = None if mode == "exact" else torch.zeros(2, 2, 2, dtype=torch.bool)
    message = "the output of 1 was changed in place after the last frame and would be kept; change a clone of what"
    with torch.inference_mode(inference):
        state = plan.new_state(2)
        assert plan.report().nodes[-1].name == "1"  # which errors call it too
        plan(frames[0], None, state).mul_(1)  # of a view; that the values are the same is not looked at
        state.reset(1)  # another's planes
        for _ in range(2):
            with pytest.raises(SparseBlockError, match=f"^plan: {message}"):
                plan(frames[0], None if mode == "exact" else mask | torch.tensor([[[False]], [[True]]]), state)
        with pytest.raises(SparseBlockError, match=f"^FeatureCache: {message}"):
            state.fork()
        fork = plan.new_state(2)
        kept = plan(frames[0], None, fork).clone()
        assert torch.equal(plan(frames[0], mask, fork), kept)
        if mode == "exact":
            state.reset()
        plan(frames[0], None, state)  # nothing is kept
        assert torch.equal(plan(frames[0], mask, state), kept)
        fork.reset(1)  # which writes too
        whole = None if mode == "exact" else mask | torch.tensor([[[False]], [[True]]])
        assert torch.equal(plan(frames[0], whole, fork), kept)


def test_mask_and_block_set_are_the_same():
    case, plan, state = compiled()
    other = plan.new_state()
    for active in (None, torch.rand(1, plan.grid.rows, plan.grid.cols) < 0.5):
        frame = case.frames()
        mask = torch.ones(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool) if active is None else active
        given_set = plan(frame, BlockSet.from_mask(mask, case.block), state)
        assert_identical(given_set, plan(frame, active, other))


def test_structure_of_the_output():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.a(x)
            return {"maps": [y, y[:, 1:3]], "flat": (y.flatten(2), 5), "same": x}

    frame = torch.randn(1, 3, 16, 16)
    network = Net().eval()
    plan = sparseblock.compile(network, frame, 8)
    out, expected = plan(frame, None, plan.new_state()), network(frame)
    assert pytree.tree_structure(out) == pytree.tree_structure(expected)
    assert torch.equal(out["same"], frame) and out["flat"][1] == 5
    assert torch.equal(out["maps"][0][:, 1:3], out["maps"][1])
    assert torch.equal(out["flat"][0], out["maps"][0].flatten(2))


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.view(x.shape[0], -1).sum(1),
        lambda x: x.contiguous().view(x.shape[0], -1).sum(1),
        lambda x: F.linear(x.view(x.shape[0], -1), torch.ones(5, 4 * 16 * 16)),
    ],
)
def test_views_after_a_convolution_see_what_capture_saw(flatten):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Call("", flatten), nn.Identity()).eval()
    # Small whole numbers: every sum is exact in float32, in whatever order it is taken.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))
    frame = torch.randint(-3, 4, (1, 3, 16, 16)).float()
    plan = sparseblock.compile(network, frame, 8)
    assert torch.equal(plan(frame, None, plan.new_state()), network(frame))


def test_several_streams_of_dense_outputs():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Call("", lambda x: (x.argmax(1), x.flatten(1).sum(1)))).eval()
    frames = torch.randn(3, 3, 16, 16)
    plan = sparseblock.compile(network, frames, 8)
    classes, sums = plan(frames, None, plan.new_state(3))
    assert classes.shape == (3, 16, 16) and sums.shape == (3,)
    alone = plan(frames[1:2], None, plan.new_state())[0]
    assert torch.equal(classes[1:2], alone)


def test_reset_stream_wants_a_whole_frame():
    case, plan, state = compiled(streams=2)
    frames = case.frames(2)
    plan(frames, None, state)
    state.reset(1)
    mask = torch.ones(2, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    mask[0] = False
    plan(frames, mask, state)
    assert state.frames == [2, 1]


@given(cases())
def test_macs_add_up(case):
    """Over blocks and the dense part, and over nodes."""
    plan = sparseblock.compile(case.network, case.frames(), case.block)
    assert plan.block_macs.dtype == torch.int64
    assert tuple(plan.block_macs.shape) == (plan.grid.rows, plan.grid.cols)
    assert plan.dense_macs + int(plan.block_macs.sum()) == plan.macs
    assert sum(node.macs for node in plan.report().nodes) == plan.macs


def test_macs_of_blocks_are_clipped_to_the_frame():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ConvTranspose2d(4, 3, 2, 2)).eval()
    plan = sparseblock.compile(network, torch.randn(1, 2, 10, 19), block_size=8)
    pixels = torch.tensor([8, 2])[:, None] * torch.tensor([8, 8, 3])
    assert torch.equal(plan.block_macs, pixels * (2 * 4 * 9) + pixels * (4 * 3 * 4))
    assert plan.macs == 10 * 19 * (2 * 4 * 9 + 4 * 3 * 4) and plan.dense_macs == 0


def test_macs_of_dense_nodes():
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 10)).eval()
    plan = sparseblock.compile(network, torch.randn(1, 2, 8, 8), block_size=8)
    assert plan.dense_macs == 4 * 64 * 10 and plan.macs == plan.dense_macs + 8 * 8 * 2 * 4


def test_profile_names_every_node_that_works():
    case, plan, state = compiled("swift")
    plan(case.frames(), None, state)
    times = plan.profile(case.frames(), None, state)
    assert len(times) == sum(node.kernel != "" for node in plan.report().nodes)
    assert any(name == "body.3: conv2d" for name, _ in times)
    assert all(seconds >= 0 for _, seconds in times) and state.frames == [2]


def test_names_are_given_in_a_list():
    case, _, _ = compiled()
    for name in ("parts", "gates"):
        message = f"compile: {name} is 'stem'; it must be a list of names: {name}=['stem']"
        with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
            sparseblock.compile(case.network, case.frames(), case.block, **{name: "stem"})


def test_only_a_plan_is_explained():
    with pytest.raises(SparseBlockError, match=r"^explain: plan is a int; it must be a Plan or NestedPlan$"):
        sparseblock.explain(3)


def refused(frame, blocks, message, streams=1):
    _, plan, state = compiled(streams=streams)
    with pytest.raises(SparseBlockError, match="^plan: " + re.escape(message)) as caught:
        plan(frame, blocks, state)
    assert "\n" not in str(caught.value) and state.frames == [0] * streams


def test_refuses_frames_that_do_not_fit():
    refused(torch.randn(1, 3, 36, 45), None, "frame is [1, 3, 36, 45]; this plan and state take [1, 3, 36, 44]")
    refused(torch.randn(2, 3, 36, 44), None, "frame is [2, 3, 36, 44]; this plan and state take [1, 3, 36, 44]")
    refused(torch.randn(1, 3, 36, 44).double(), None, "frame is torch.float64 on cpu; it must be float32 on cpu")
    refused(torch.randn(1, 3, 36, 44, device="meta"), None, "frame is torch.float32 on meta; it must be float32 on cpu")
    refused("frame", None, "frame is str; it must be float32 on cpu")
    refused(
        torch.randn(1, 3, 36, 44).to_sparse(),
        None,
        "frame is torch.sparse_coo; it must be a dense tensor: frame.to_dense()",
    )


def test_refuses_blocks_that_do_not_fit():
    frame = torch.randn(1, 3, 36, 44)
    refused(
        frame,
        torch.ones(1, 3, 4, dtype=torch.bool),
        "blocks is torch.bool [1, 3, 4] on cpu; it must be None, a BlockSet or",
    )
    refused(frame, torch.ones(1, 3, 3), "blocks is torch.float32 [1, 3, 3] on cpu; it must be None, a BlockSet or")
    refused(
        frame,
        torch.ones(1, 3, 3, dtype=torch.bool).to_sparse(),
        "blocks is torch.bool [1, 3, 3] on cpu, torch.sparse_coo; it must be None, a BlockSet or a dense bool mask of",
    )
    for without_values in (torch.ones(1, 3, 3, dtype=torch.bool, device="meta"), BlockSet.all(1, 3, 3, 16, "meta")):
        refused(frame, without_values, "blocks are on meta, where tensors have no values; use a device that computes")
    refused(frame, BlockSet.all(2, 3, 3, 16), "blocks is a BlockSet of [2, 3, 3]; it must be None, a BlockSet or")
    refused(frame, "all", "blocks is a str; it must be None, a BlockSet or")
    refused(
        frame,
        BlockSet.all(1, 3, 3, (16, 8)),
        "blocks are of 16x8 px but this plan's are of 16x16; "
        "make them with block=16, or compile a plan with their block_size",
    )


def test_refuses_a_first_frame_in_part():
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[1, 0] = False
    message = "stream 1 has 6 of 9 blocks active in its first frame; there is nothing to keep yet: give it all blocks"
    refused(torch.randn(2, 3, 36, 44), mask, message, streams=2)
    refused(torch.randn(2, 3, 36, 44), BlockSet.from_mask(mask, 16), message, streams=2)


def test_refuses_the_state_of_another_plan():
    case, plan, _ = compiled()
    _, _, other = compiled()
    with pytest.raises(SparseBlockError, match=r"plan: state is not of this plan; make it with plan.new_state"):
        plan(case.frames(), None, other)


def test_refuses_streams_of_an_output_without_batch_axis():
    plan = sparseblock.compile(Call("", lambda x: x.sum()).eval(), torch.randn(1, 3, 8, 8), 8)
    plan(torch.randn(1, 3, 8, 8), None, plan.new_state())
    with pytest.raises(
        SparseBlockError, match=r"new_state: the output of sum_1 is \[\] for one frame.*use one state per stream"
    ):
        plan.new_state(streams=2)


def test_refuses_another_backend_than_it_was_compiled_for(monkeypatch):
    case, plan, state = compiled()
    monkeypatch.setenv("SPARSEBLOCK_BACKEND", "reference")
    with pytest.raises(SparseBlockError, match="compiled for the cpu backend, but reference is in force"):
        plan(case.frames(), None, state)
