"""Changes in the native code: found in a frame, passed on, held back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sparseblock.backends.cpu import native
from sparseblock.testing import assert_identical


class Value:
    """What changed of a value, with its memory."""

    def __init__(self, streams: int, h: int, w: int, tile: int) -> None:
        self.pixels = torch.full((streams, h, w), 7, dtype=torch.uint8)
        self.tile = tile
        self.index = torch.full((streams * -(-h // tile) * -(-w // tile), 3), -1, dtype=torch.int32)
        self.count, self.passed = torch.full((2, 1), -1, dtype=torch.int32)

    def struct(self) -> native.Changes:
        pointers = (tensor.data_ptr() for tensor in (self.pixels, self.index, self.count, self.passed))
        return native.Changes(*pointers, *self.pixels.shape[1:], self.tile)

    def check(self, expected: torch.Tensor) -> None:
        """The marks are `expected`, bool [n, h, w], and the list is of the tiles with one."""
        assert torch.equal(self.pixels.bool(), expected)
        assert int(self.pixels.max()) <= 1
        tiles = F.max_pool2d(expected.float(), self.tile, ceil_mode=True).nonzero()
        assert torch.equal(self.index[: int(self.count)].long(), tiles)
        assert int(self.passed) == int(self.count)


def reach(matrix: np.ndarray) -> tuple[native.Reach, list[np.ndarray]]:
    """Of each row of `matrix` the columns that are true."""
    start = np.concatenate([[0], matrix.sum(1).cumsum()]).astype(np.int32)
    index = np.append(matrix.nonzero()[1], 0).astype(np.int32)
    return native.Reach(start.ctypes.data, index.ctypes.data), [start, index]


@given(st.integers(1, 3), st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 4))
def test_changes_spread_to_what_reads_them(streams, seed, inputs, tile):
    random = np.random.default_rng(seed)
    h, w = (int(size) for size in random.integers(1, 20, 2))
    out = Value(streams, h, w, tile)
    whole = torch.from_numpy(random.random(streams) < 0.2)
    expected = whole[:, None, None].expand(streams, h, w).clone()
    values, sources, alive = [out], [], []
    for number in range(inputs):
        source = Value(streams, *(int(size) for size in random.integers(1, 20, 2)), 1)
        source.pixels[:] = torch.from_numpy(random.random(source.pixels.shape) < 0.02)
        vertical, horizontal = (
            random.random((a, b)) < 0.2 for a, b in zip((h, w), source.pixels.shape[1:], strict=True)
        )
        for n in range(streams):
            read = torch.from_numpy(vertical).long() @ source.pixels[n].long() @ torch.from_numpy(horizontal).long().T
            expected[n] |= read > 0
        made = reach(vertical), reach(horizontal.T)
        alive.append(made)
        sources.append(native.Source(number + 1, *(item[0] for item in made)))
        values.append(source)
    rule = native.Spread((native.Source * inputs)(*sources), inputs, 0, -1.0)
    table = (native.Changes * len(values))(*(value.struct() for value in values))
    native.lib().sb_spread_run(rule, table, streams, bytes(whole.tolist()))
    out.check(expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 13, 22), (1, 1, 4, 4), (1, 5, 1, 9), (1, 3, 9, 1)])
def test_every_bit_of_a_frame_counts(shape, layout, threads):
    """Also those of NaN, and the sign of zero; what changed is taken up, the rest stays."""
    n, _, h, w = shape
    generator = torch.Generator().manual_seed(0)
    frame = torch.empty(shape, memory_format=layout).copy_(torch.randn(shape, generator=generator))
    frame[..., 0, 0] = torch.nan
    last = torch.empty_strided(shape, frame.stride()).copy_(frame)
    found = Value(n, h, w, 4)
    expected = torch.zeros(found.pixels.shape, dtype=torch.bool)
    for place in torch.randint(0, h * w, (4,), generator=generator).tolist():
        y, x = place // w, place % w
        last[-1, -1, y, x] = 0.0
        frame[-1, -1, y, x] = -0.0
        expected[-1, y, x] = True
    planes = native.plane_of(frame), native.plane_of(last)
    native.lib().sb_compare_run(*planes, -1.0, found.struct(), bytes(n), threads)
    found.check(expected)
    assert_identical(last, frame)


def test_a_frame_within_its_tolerance_is_not_taken_up():
    frame, last = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    frame[0, 0, 1, 1], frame[0, 1, 6, 6], frame[0, 0, 1, 6] = 0.25, 0.5, torch.nan
    found = Value(1, 8, 8, 4)
    planes = native.plane_of(frame), native.plane_of(last)
    native.lib().sb_compare_run(*planes, 0.5, found.struct(), bytes(1), 1)
    expected = torch.zeros(1, 8, 8, dtype=torch.bool)
    expected[0, 6, 6] = expected[0, 1, 6] = True
    found.check(expected)
    assert last[0, 0, 1, 1] == 0.0 and last[0, 1, 6, 6] == 0.5 and last[0, 0, 1, 6].isnan()
