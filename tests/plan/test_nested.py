"""Models that do not capture whole: their parts are plans, the rest is Python, and the model stays as it was."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from networks import set_norms
from torch import nn
from torch.utils import _pytree as pytree

import sparseblock
from sparseblock import BlockSet, SparseBlockError
from sparseblock.plan.carry import carry
from sparseblock.plan.nested import NestedPlan
from sparseblock.testing import assert_identical, assert_matches, tolerance


class Levels(NamedTuple):
    fine: torch.Tensor
    coarse: torch.Tensor


@dataclass
class Scores:
    levels: list[torch.Tensor]


def conv(c: int, k: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, k, 3, stride, 1), nn.BatchNorm2d(k), nn.ReLU())


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv(3, 6, 2), conv(6, 6, 2)

    def forward(self, x):
        fine = self.stem(x)
        return Levels(fine, self.down(fine))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, levels, scale=1.0):
        return Scores([self.score(x) * scale for x in levels])


class Detector(nn.Module):
    """A detector in small: resize and pad, backbone, a head on every level, boxes by value, and a second stage."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head, self.second = Backbone(), Head(), nn.Conv2d(6, 3, 2)

    def transform(self, images):
        x = torch.stack(list(images)) if isinstance(images, (list, tuple)) else images
        x = F.interpolate((x - 0.5) / 0.25, size=(44, 60), mode="bilinear")
        return F.pad(x, (0, 4, 0, 4))

    def forward(self, images):
        levels = self.backbone(self.transform(images))
        scores = self.head(list(levels), scale=2.0)
        places = (scores.levels[0][0, 0] > scores.levels[0][0, 0].mean()).nonzero()[:5].clamp(max=20)
        boxes = torch.stack([levels.fine[0, :, y : y + 2, x : x + 2] for y, x in places.tolist()])
        return {"scores": scores.levels, "places": places, "boxes": self.second(boxes)}


def detector():
    torch.manual_seed(0)
    return set_norms(Detector())


FRAME = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(1))


def assert_same(out, expected):
    assert pytree.tree_structure(out) == pytree.tree_structure(expected)
    for got, want in zip(pytree.tree_leaves(out), pytree.tree_leaves(expected), strict=True):
        assert_matches(got, want, tolerance(500, want.abs().max().expand_as(want)))


def snapshot(network):
    """Every attribute of every module: containers and tensors by identity, the rest by value."""
    return {
        (name, attribute): value if isinstance(value, (bool, int, tuple, str)) else id(value)
        for name, module in network.named_modules()
        for attribute, value in vars(module).items()
    }


@pytest.mark.parametrize("frame", [FRAME, [FRAME[0]]], ids=["tensor", "images"])
def test_parts_are_found_and_the_model_stays_as_it_was(frame):
    network = detector()
    before = snapshot(network)
    plan = sparseblock.compile(network, frame, block_size=16)
    assert isinstance(plan, NestedPlan) and list(plan.parts) == ["backbone", "head"]
    assert (plan.grid.rows, plan.grid.cols) == (4, 5)
    with torch.no_grad():
        expected = network(frame)
    state = plan.new_state()
    assert_same(plan(frame, None, state), expected)
    assert_same(plan(frame, torch.zeros(1, 4, 5, dtype=torch.bool), state), expected)
    assert state.frames == [2] and state.nbytes > 0
    assert snapshot(network) == before


def test_report_and_macs():
    plan = sparseblock.compile(detector(), FRAME, block_size=16)
    report = plan.report()
    backbone = 24 * 32 * 6 * 27 + 12 * 16 * 6 * 54
    head = (24 * 32 + 12 * 16) * 2 * 54
    assert report.macs == plan.macs == backbone + head + 5 * 3 * 6 * 4
    assert plan.dense_macs == 5 * 3 * 6 * 4 and int(plan.block_macs.sum()) == backbone + head
    text = str(report)
    assert "2 parts, backbone, head; the rest stays Python" in text and "not captured whole: compile: Detector" in text
    assert json.loads(report.to_json())["parts"]["head"]["nodes"] and 0.9 < report.coverage < 1


def test_explain_names_the_convolutions_of_every_part():
    plan = sparseblock.compile(detector(), FRAME, block_size=16)
    said = sparseblock.explain(plan)
    for part, inner in plan.parts.items():
        for line in sparseblock.explain(inner).splitlines():
            assert (line if line.startswith(" ") else f"{part}/{line}") in said
    assert sparseblock.explain(plan, "head/score").startswith("head/score: conv2d, ")
    with pytest.raises(SparseBlockError, match=r"^explain: there is no convolution 'score'; there are backbone/stem"):
        sparseblock.explain(plan, "score")


def test_what_is_of_the_grid_says_so():
    """A model in parts has no exact plan, and what to do instead is said."""
    with pytest.raises(SparseBlockError, match=r'its parts are found in mode "grid", in torch\.float32, without gates'):
        sparseblock.compile(detector(), FRAME, mode="exact")
    with pytest.raises(SparseBlockError, match=r"^verify: plan is a NestedPlan, whose parts are of the grid; only"):
        sparseblock.verify(sparseblock.compile(detector(), FRAME, block_size=16), [FRAME])


def test_blocks_carry_over_to_the_resized_frame():
    """A block of the frame reaches the blocks of the inner frame that its pixels are resized into, padding the last."""
    plan = sparseblock.compile(detector(), FRAME, block_size=16)
    state = plan.new_state()
    before = pytree.tree_map(torch.clone, plan(FRAME, None, state)["scores"])
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 3, 0] = True  # rows 48..49 of 50 are rows 42..43 of 44, and the padding below to 48
    frame = FRAME.clone()
    frame[..., 48:, :16] += 1
    after = plan(frame, mask, state)["scores"]
    # columns 0..15 of 70 are 0..13.7 of 60: the first block alone; row 42 lies in the third row of blocks
    for level, block in ((0, 8), (1, 4)):
        active = torch.zeros_like(after[level], dtype=torch.bool)
        active[:, :, 2 * block : 3 * block, :block] = True
        assert_identical(after[level], before[level], ~active)
        assert not torch.equal(after[level], before[level])


def test_carry_of_a_frame_at_a_stride_is_the_frame_itself():
    grid = sparseblock.BlockGrid(50, 70, 16)
    same = carry(FRAME, grid, lambda x: F.avg_pool2d(x, 2, ceil_mode=True))
    mask = torch.rand(2, 4, 5) < 0.5
    assert same.stride == 2 and same.grid == grid and same.mask(mask) is mask


def test_carry_shares_out_what_it_reaches():
    grid = sparseblock.BlockGrid(64, 64, 16)
    way = carry(torch.rand(1, 3, 64, 64), grid, lambda x: F.interpolate(x, (32, 48), mode="nearest"))
    assert (way.grid.rows, way.grid.cols) == (2, 3)
    assert way.rows.int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert way.cols.int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    macs = torch.tensor([[10, 20, 30], [40, 50, 61]])
    shared = way.share_out(macs)
    assert shared.sum() == macs.sum() and shared[0, 0] == 10 // 4
    with pytest.raises(SparseBlockError, match="does not depend on the frame"):
        carry(torch.rand(1, 3, 64, 64), grid, lambda x: torch.zeros(1, 3, 20, 33))


def test_a_global_change_before_the_parts_reaches_every_block():
    grid = sparseblock.BlockGrid(64, 64, 16)
    way = carry(torch.rand(1, 3, 64, 64), grid, lambda x: F.interpolate(x / x.mean(), (32, 48)))
    assert way.rows.all() and way.cols.all()


class Sometimes(nn.Module):
    """Its head runs on bright frames only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = conv(3, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.body(x)
        return self.head(y) if x.mean() > 0 else None


def test_blocks_of_a_part_that_was_not_called_run_when_it_is():
    network = set_norms(Sometimes())
    plan = sparseblock.compile(network, torch.rand(1, 3, 32, 32), block_size=16)
    state = plan.new_state()
    masks = torch.eye(4, dtype=torch.bool).reshape(4, 1, 2, 2)
    plan(torch.rand(1, 3, 32, 32), None, state)
    assert plan(-torch.rand(1, 3, 32, 32), masks[0], state) is None
    out = plan(torch.rand(1, 3, 32, 32), masks[3], state)
    features = plan.parts["body"].output_planes(state.caches["body"])[0]
    with torch.no_grad():
        assert_same(out, network.head(features))
    assert state.frames == [3]


class InPlace(nn.Module):
    """Writes to what its part returned in frames that are bright."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(3, 4)

    def forward(self, x):
        y = self.body(x)
        if x.mean() > 0:
            y[:, ::2].sub_(1.0)
        return y


@pytest.mark.parametrize("inference", [False, True])
def test_a_model_may_change_what_a_part_returned(inference):
    """What it has written is not there in the next frame."""
    network = set_norms(InPlace())
    with torch.inference_mode(inference):
        plan = sparseblock.compile(network, torch.rand(1, 3, 32, 32), block_size=16)
        state = plan.new_state()
        frame = torch.rand(1, 3, 32, 32)
        before = network.body(frame)
        plan(frame, None, state)
        mask = torch.tensor([[[True, False], [False, False]]])
        for one in (state, state.fork()):
            out = plan(frame, mask, one)
            assert_same(out[:, 1::2], before[:, 1::2])
            assert_same(out[:, ::2], before[:, ::2] - 1)


def test_refuses_a_model_that_changes_what_a_part_returned_later_than_in_its_first_frame():
    plan = sparseblock.compile(set_norms(InPlace()), torch.rand(1, 3, 16, 16), block_size=16)
    state = plan.new_state()
    plan(-torch.rand(1, 3, 16, 16), None, state)
    plan(torch.rand(1, 3, 16, 16), None, state)
    with pytest.raises(SparseBlockError, match="the model has changed what body returned in place"):
        plan(torch.rand(1, 3, 16, 16), None, state)


class Repeats(nn.Module):
    """One part, called as often as the frame says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        for _ in range(int(x.max())):
            x = self.body(x)
        return x


def test_a_part_that_is_called_twice():
    network = Repeats().eval()
    frame = torch.rand(1, 3, 16, 16) * 0.9
    frame[0, 0, 0, 0] = 2.5
    plan = sparseblock.compile(network, frame, block_size=8)
    assert list(plan.parts) == ["body", "body#2"]
    state = plan.new_state()
    with torch.no_grad():
        assert_same(plan(frame, None, state), network(frame))
    frame[0, 0, 0, 0] = 3.5
    with pytest.raises(SparseBlockError, match="body is called 3 times in this frame, more often than when"):
        plan(frame, None, state)


def test_streams():
    network = set_norms(Sometimes())
    frames = torch.rand(2, 3, 32, 32)
    plan = sparseblock.compile(network, frames, block_size=16)
    state = plan.new_state(2)
    plan(frames, None, state)
    state.reset(1)
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    mask[0, 0] = False
    out = plan(frames + 1, mask, state)
    assert state.frames == [2, 1]
    with torch.no_grad():
        assert_same(out[1:], network(frames[1:] + 1))


def test_named_parts():
    plan = sparseblock.compile(detector(), FRAME, block_size=16, parts=["backbone.stem"])
    assert list(plan.parts) == ["backbone.stem"] and "not captured whole" not in str(plan.report())
    with torch.no_grad():
        assert_same(plan(FRAME, None, plan.new_state()), detector()(FRAME))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts is empty; name a submodule, or leave it out to have the parts found"),
        (["neck"], "Detector has no submodule 'neck'; its children are backbone, head, second"),
        (["backbone", "backbone.stem"], "part 'backbone.stem' lies inside of another part; name one of them"),
        (["backbone.stem.1"], "part 'backbone.stem.1' holds no convolution or is not called when the model runs"),
        (["backbone", "second"], "part 'second' gets [[5, 6, 2, 2]]; a part reads float32 maps [n, c, h, w]"),
    ],
)
def test_refused_parts(parts, message):
    with pytest.raises(SparseBlockError, match=re.escape(message)):
        sparseblock.compile(detector(), FRAME, block_size=16, parts=parts)


def test_refused_calls():
    plan = sparseblock.compile(detector(), FRAME, block_size=16)
    state = plan.new_state()
    with pytest.raises(SparseBlockError, match=re.escape("frame is 1 of [50, 71]; this plan and state take 1 of [50,")):
        plan(torch.rand(1, 3, 50, 71), None, state)
    with pytest.raises(SparseBlockError, match="stream 0 has 0 of 20 blocks active in its first frame"):
        plan(FRAME, torch.zeros(1, 4, 5, dtype=torch.bool), state)
    with pytest.raises(SparseBlockError, match="it must be None, a BlockSet or a dense bool mask"):
        plan(FRAME, torch.zeros(1, 4, 4, dtype=torch.bool), state)
    with pytest.raises(SparseBlockError, match="blocks are of 8x8 px but this plan's are of 16x16"):
        plan(FRAME, BlockSet.all(1, 4, 5, 8), state)
    for without_values in (torch.ones(1, 4, 5, dtype=torch.bool, device="meta"), BlockSet.all(1, 4, 5, 16, "meta")):
        with pytest.raises(SparseBlockError, match="plan: blocks are on meta, where tensors have no"):
            plan(FRAME, without_values, state)
    with pytest.raises(SparseBlockError, match="state is not of this plan"):
        plan(FRAME, None, None)
    with pytest.raises(SparseBlockError, match="a list of images"):
        sparseblock.compile(detector(), [FRAME[0], FRAME[0, :, 1:]])
