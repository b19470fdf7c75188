"""Mask R-CNN whole: parts found, outputs the dense model's to rounding, on a frame that the model resizes."""

from __future__ import annotations

import torch
from support import settle
from torchvision.models import detection

import sparseblock

FRAME = (72, 100)


@torch.no_grad()
def test_mask_rcnn():
    torch.manual_seed(0)
    options = {"min_size": 96, "max_size": 160, "rpn_post_nms_top_n_test": 50}
    shown = {"box_score_thresh": 0.0, "box_detections_per_img": 5}
    make = detection.maskrcnn_resnet50_fpn
    model = settle(make(weights=None, weights_backbone=None, **options, **shown), torch.rand(2, 3, *FRAME))
    frame = [torch.rand(3, *FRAME)]
    plan = sparseblock.compile(model, frame, block_size=64)
    assert list(plan.parts) == ["backbone", "rpn.head"]
    assert all(part.dense_macs == 0 for part in plan.parts.values())
    state = plan.new_state()
    (expected,) = model(frame)
    block = torch.zeros(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    block[0, 0, 1] = True
    for mask in (None, block):  # the same frame again: whatever runs, the result is the same
        (found,) = plan(frame, mask, state)
        assert found.keys() == expected.keys() and len(found["boxes"]) == 5
        assert torch.equal(found["labels"], expected["labels"])
        for name, unit in (("boxes", 160.0), ("scores", 1.0), ("masks", 1.0)):
            # Rounding of 60 layers, eps times the terms of their sums, in units of the quantity; a fault moves a box.
            bound = 60 * 1000 * torch.finfo(torch.float32).eps * unit
            assert (found[name] - expected[name]).abs().max() < bound, name
