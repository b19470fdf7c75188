"""BlockCopy on a detector that runs in parts: what depends on values stays Python, its boxes are what is gained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from blockcopy import BlockCopy, names
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan import NestedPlan

SIZE, BLOCK, SQUARE = (96, 160), 32, 16


class Detector(nn.Module):
    """Finds bright squares: resizes, smooths by a convolution, and takes a box of the squares' size at every peak."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 1, 15, padding=7, bias=False), nn.ReLU())
        hat = 1 - (torch.arange(15) - 7).abs() / 8
        self.body[0].weight = nn.Parameter((hat[:, None] * hat / (3 * hat.sum() ** 2)).expand(1, 3, 15, 15).clone())

    def forward(self, images):
        x = F.interpolate(images, scale_factor=0.75, mode="bilinear")
        heat = self.body(x)
        peak = (heat == F.max_pool2d(heat, 13, 1, 6)) & (heat > 1.2)
        _, _, y, x = peak.nonzero(as_tuple=True)
        centre = torch.stack([x, y, x, y], 1) / 0.75
        boxes = centre + torch.tensor([-0.5, -0.5, 0.5, 0.5]) * SQUARE
        return [{"boxes": boxes, "scores": (heat[0, 0, y, x] / 2).clamp(max=1), "labels": torch.ones_like(x)}]


def film(count: int) -> list[torch.Tensor]:
    """A dim scene; from the second frame on a bright square crosses it in one row of blocks."""
    scene = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) / 2
    frames = [scene]
    for index in range(1, count):
        frame = scene.clone()
        left = 8 + 2 * index % (SIZE[1] - 2 * SQUARE)
        frame[..., 40 : 40 + SQUARE, left : left + SQUARE] = 2
        frames.append(frame)
    return frames


@pytest.mark.parametrize("policy", names())
def test_every_policy_drives_a_plan_in_parts(policy):
    video = BlockCopy(Detector().eval(), "detection", block_size=BLOCK, policy=policy, scene_cut=None)
    for frame in film(10):
        (found,) = video(frame)
        assert found.keys() == {"boxes", "scores", "labels"}
    assert isinstance(video.plan, NestedPlan) and list(video.plan.parts) == ["body"]
    assert video.stats.macs == video.plan.dense_macs + video.plan.block_macs[video.active].sum()
    if policy == "all":
        with torch.no_grad():
            (expected,) = video.model(frame)
        assert len(expected["boxes"]) == 1
        torch.testing.assert_close(found, expected)


def test_the_policy_finds_the_row_in_which_boxes_move():
    video = BlockCopy(Detector().eval(), "detection", target=0.3, block_size=BLOCK, scene_cut=None, max_age=None)
    masks = []
    for frame in film(200):
        video(frame)
        masks.append(video.active.float())
    rate = torch.stack(masks[100:]).mean(0)
    assert rate[1].mean() > 2 * rate[[0, 2]].mean()
    assert abs(torch.stack(masks[1:]).mean() - 0.3) < 0.05


def test_a_network_whole_gets_its_detections_from_read():
    body = Detector().eval().body
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    video = BlockCopy(body, "detection", block_size=BLOCK, read=lambda out: none)
    for frame in film(5):
        assert isinstance(video(frame), torch.Tensor)
    assert isinstance(video.plan, sparseblock.Plan)


def test_a_backend_that_never_waits_is_refused():
    with sparseblock.backend("reference"):
        message = "BlockCopy: task is 'detection' on the reference backend, where no frame waits for the host, but the"
        with pytest.raises(SparseBlockError, match=f"^{message}"):
            BlockCopy(Detector().eval().body, "detection", block_size=BLOCK)(film(1)[0])
        assert BlockCopy(Detector().eval().body, "detection", block_size=BLOCK, policy="all")(film(1)[0]).dim() == 4
