"""The detectors: LFFD with its real weights, and the ELAN network that measurements use."""

from __future__ import annotations

import torch
from tasknets.checkpoint import load_weights
from tasknets.elan import ELAN
from tasknets.lffd import LFFD, SEEN, STRIDES, boxes

import sparseblock


def test_boxes_are_where_the_pixels_say():
    output = [(torch.zeros(1, 2, 6, 8), torch.zeros(1, 4, 6, 8)) for _ in STRIDES]
    score, box = output[1]
    score[0, 0, 2, 3] = 0.9
    box[0, :, 2, 3] = torch.tensor([0.5, 0.25, -0.5, -1.0])
    x, y = 3 * STRIDES[1] + STRIDES[1] - 1, 2 * STRIDES[1] + STRIDES[1] - 1
    half = SEEN[1] / 2
    expected = torch.tensor([[x - 0.5 * half, y - 0.25 * half, x + 0.5 * half, y + half, 0.9]])
    assert torch.equal(boxes(output), expected)
    score[0, 0, 2, 4] = 0.8  # nearly the same box, worse: left out
    box[0, :, 2, 4] = box[0, :, 2, 3]
    assert torch.equal(boxes(output), expected)
    assert len(boxes(output, threshold=0.95)) == 0
    assert len(boxes(output, overlap=0.9)) == 2


def test_real_lffd_weights_find_the_head_in_the_dog_clip(data, read_frame):
    model = LFFD().eval()
    load_weights(model, data / "weights" / "lffd_head17L_converted.pth", "lffd")
    bgr = read_frame("fixed_dog_720p", 100).flip(2).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        found = boxes(model(bgr))
    assert len(found) == 1 and found[0, 4] > 0.9
    x, y = (found[0, :2] + found[0, 2:4]) / 2
    assert 400 < x < 480 and 120 < y < 200
    plan = sparseblock.compile(model, bgr, block_size=64)
    assert plan.dense_macs == 0
    torch.testing.assert_close(boxes(plan(bgr, None, plan.new_state())), found)


def test_lffd_has_the_published_parameters():
    assert sum(p.numel() for p in LFFD().parameters()) == 1_027_544


def test_elan_predicts_at_three_strides():
    with torch.inference_mode():
        out = ELAN(classes=3).eval()(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in out] == [(1, 8, 8, 12), (1, 8, 4, 6), (1, 8, 2, 3)]
