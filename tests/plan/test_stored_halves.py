"""Plans whose planes are bfloat16 or float16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparseblock
from sparseblock import BlockSet, SparseBlockError, ops

HALVES = [torch.bfloat16, torch.float16]


class Mixed(nn.Module):
    """Convolutions with a residual around an operator without a rule; a map, sums and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = self.first(x).relu()
        out = self.second(first.erf()) + first
        return out, out.flatten(2).logsumexp(2), out.argmax(1)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_map_is_rounded_once_and_torch_calls_compute_in_float32(dtype):
    """The bits of the same steps by hand, on the first frame and where blocks were active after it."""
    torch.manual_seed(0)
    network = Mixed().eval()
    frames = torch.randn(2, 1, 3, 20, 28)
    plan = sparseblock.compile(network, frames[0], block_size=8, dtype=dtype, algorithms="direct")
    state = plan.new_state()
    blocks = BlockSet.all(1, plan.grid.rows, plan.grid.cols, 8)

    def steps(frame: torch.Tensor) -> torch.Tensor:
        x = frame.to(dtype).contiguous(memory_format=torch.channels_last)
        first, out = (torch.empty(1, 6, 20, 28, dtype=dtype, memory_format=torch.channels_last) for _ in range(2))
        weights = [(layer.weight, layer.bias) for layer in (network.first, network.second)]
        ops.conv2d(x, *weights[0], blocks, first, padding=1, activation="relu")
        dense = first.float().erf().to(dtype).contiguous(memory_format=torch.channels_last)
        return ops.conv2d(dense, *weights[1], blocks, out, padding=1, residual=first)

    with torch.no_grad():
        out, sums, classes = plan(frames[0], None, state)
        expected = steps(frames[0])
        assert torch.equal(out, expected)
        assert (out.dtype, sums.dtype, classes.dtype) == (dtype, torch.float32, torch.int64)
        assert torch.equal(sums, expected.float().contiguous().flatten(2).logsumexp(2))
        kept = out.clone()
        mask = torch.zeros(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
        out, *_ = plan(frames[1], mask, state)
        assert torch.equal(out, kept)
        out, *_ = plan(frames[1], None, state)
        assert torch.equal(out, steps(frames[1]))


@pytest.mark.parametrize("dtype", HALVES)
def test_planes_take_half_of_the_memory(dtype):
    network, frame = Mixed().eval(), torch.randn(1, 3, 20, 28)
    wide = sparseblock.compile(network, frame, block_size=8)
    narrow = sparseblock.compile(network, frame, block_size=8, dtype=dtype)
    assert 2 * narrow.new_state(3).nbytes == wide.new_state(3).nbytes
    assert 2 * narrow.report().plane_bytes == wide.report().plane_bytes
    assert f"a stream, in {str(dtype).removeprefix('torch.')}: " in str(narrow.report())
    assert "a stream, in float32: " in str(wide.report())


def test_another_dtype_is_refused():
    message = r"compile: dtype is torch.float64; it must be one of torch.float32, torch.bfloat16, torch.float16"
    with pytest.raises(SparseBlockError, match=message):
        sparseblock.compile(Mixed().eval(), torch.randn(1, 3, 20, 28), dtype=torch.float64)
