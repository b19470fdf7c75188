"""cat_slices: a concatenation that its producers write in place."""

from __future__ import annotations

import torch

from sparseblock import BlockSet, ops
from sparseblock.testing import assert_identical, channels_last


def test_ops_write_straight_into_slices():
    x, weight = channels_last(torch.randn(1, 4, 10, 10)), torch.randn(5, 4, 3, 3)
    blocks = BlockSet.from_mask(torch.tensor([[[True, False], [False, True]]]), block=5)
    parts = [channels_last(torch.zeros(1, c, 10, 10)) for c in (5, 4)]
    ops.conv2d(x, weight, None, blocks, parts[0], padding=1)
    ops.activation(x, blocks, parts[1], activation="relu")

    out = channels_last(torch.zeros(1, 9, 10, 10))
    left, right = ops.cat_slices(out, [5, 4])
    ops.conv2d(x, weight, None, blocks, left, padding=1)
    ops.activation(x, blocks, right, activation="relu")

    assert_identical(out, torch.cat(parts, dim=1))


def test_a_slice_may_be_computed_from_another():
    """They interleave in memory but share no element."""
    out = channels_last(torch.randn(1, 8, 6, 6))
    left, right = ops.cat_slices(out, [4, 4])
    kept = left.clone()
    ops.max_pool2d(left, BlockSet.all(1, 1, 1, 6), right, kernel_size=3, stride=1, padding=1)
    assert_identical(left, kept)
    assert_identical(right, torch.nn.functional.max_pool2d(kept, 3, 1, 1))


def test_a_part_may_already_be_in_its_place():
    out = channels_last(torch.randn(1, 8, 6, 6))
    left, _ = ops.cat_slices(out, [5, 3])
    kept, other = left.clone(), channels_last(torch.randn(1, 3, 6, 6))
    ops.cat([left, other], BlockSet.all(1, 1, 1, 6), out)
    assert_identical(out, torch.cat([kept, other], dim=1))
