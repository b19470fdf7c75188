"""Parts of one tensor that share no element may be read and written at once; others may not."""

from __future__ import annotations

import pytest
import torch

from sparseblock import BlockSet, SparseBlockError, ops
from sparseblock.testing import channels_last

WHOLE = channels_last(torch.zeros(2, 8, 12, 12))
BLOCKS = BlockSet.all(1, 1, 1, 6)


@pytest.mark.parametrize(
    ("x", "out"),
    [
        (WHOLE[:1, :4, :6, :6], WHOLE[:1, 4:, :6, :6]),
        (WHOLE[:1, :4, :6, :6], WHOLE[:1, :4, :6, 6:]),
        (WHOLE[:1, :4, :6, :6], WHOLE[:1, :4, 6:, :6]),
        (WHOLE[:1, :4, :6, :6], WHOLE[1:, :4, :6, :6]),
        (WHOLE[:1, 4:, :6, 6:], WHOLE[:1, :4, :6, 6:]),
    ],
    ids=["channels", "columns", "rows", "images", "channels before"],
)
def test_apart(x, out):
    ops.max_pool2d(x, BLOCKS, out, kernel_size=1)


@pytest.mark.parametrize(
    ("x", "out"),
    [
        (WHOLE[:1, :4, :6, :6], WHOLE[:1, 3:7, :6, :6]),
        (WHOLE[:1, :4, :6, :6], WHOLE[:1, :4, :6, 5:11]),
        (WHOLE[:1, :4, :6, :6], WHOLE[:1, :4, 5:11, :6]),
        (WHOLE[:1, :4, 3:9, 3:9], WHOLE[:1, 2:6, :6, 6:]),
    ],
    ids=["channels", "columns", "rows", "corner"],
)
def test_shared(x, out):
    with pytest.raises(
        SparseBlockError, match=r"^max_pool2d: x and out share memory; they must lie apart: pass x\.clone\(\)$"
    ):
        ops.max_pool2d(x, BLOCKS, out, kernel_size=1)


def test_two_tensors_over_one_memory():
    array = channels_last(torch.zeros(1, 1, 6, 6)).numpy()
    with pytest.raises(SparseBlockError, match="share memory"):
        ops.max_pool2d(torch.from_numpy(array), BLOCKS, torch.from_numpy(array), kernel_size=1)
