"""sb_run: every step takes its own list of active blocks."""

from __future__ import annotations

import torch

from sparseblock import BlockSet
from sparseblock.backends.cpu import native
from sparseblock.testing import assert_identical


def test_each_step_takes_its_own_list():
    planes = [torch.randn(1, 3, 12, 20).to(memory_format=torch.channels_last) for _ in range(3)]
    before = [plane.clone() for plane in planes]
    masks = [torch.zeros(1, 3, 5, dtype=torch.bool) for _ in range(2)]
    masks[0][0, 1, 2] = masks[1][0, 2, 4] = masks[1][0, 0, 0] = True
    sets = [BlockSet.from_mask(mask, 4) for mask in masks]
    steps = (native.Step * 2)(
        *(native.Step(op=native.OP_POINTWISE, residual=-1, out=i + 1, list=i, block_h=4, block_w=4) for i in range(2))
    )
    table = (native.Plane * 3)(*map(native.plane_of, planes))
    native.lib().sb_run(steps, 2, table, native.lists_of(*((b.index, b.count) for b in sets)), 1, None)
    for plane, old, mask in zip(planes[1:], before[1:], masks, strict=True):
        active = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
        assert_identical(plane, torch.where(active, before[0], old))
