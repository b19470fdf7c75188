"""Sizes that index arithmetic of 32 bits cannot count in are refused; those that it can, it counts right."""

from __future__ import annotations

import pytest
import torch

from sparseblock import BlockSet, SparseBlockError, backend, ops


def everything(out: torch.Tensor) -> BlockSet:
    return BlockSet.from_mask(torch.ones(out.shape[0], 1, 1, dtype=torch.bool, device=out.device), tuple(out.shape[2:]))


def test_a_row_that_is_too_long_is_refused(cuda_device):
    x = torch.zeros(1, 1, 1, 1 << 22, device=cuda_device)
    with backend("cuda"), pytest.raises(SparseBlockError, match="4194304 pixels of 1 channels"):
        ops.activation(x, everything(x), torch.zeros_like(x))


def test_too_many_adaptive_windows_are_refused(cuda_device):
    x, out = (torch.zeros(1, 1, 1, width, device=cuda_device) for width in (4, 1 << 16))
    with backend("cuda"), pytest.raises(SparseBlockError, match=r"\(1, 65536\)"):
        ops.adaptive_avg_pool2d(x, everything(out), out)


@pytest.mark.parametrize("shape", [(1, 1, 1, (1 << 22) - 1), (1, (1 << 22) - 1, 1, 1), (2, 7, 100003, 3)])
def test_the_longest_is_counted_right(shape, cuda_device):
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32, device=cuda_device).reshape(shape)
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.zeros_like(x)
    with backend("cuda"):
        ops.activation(x, everything(out), out)
    assert torch.equal(out, x)
