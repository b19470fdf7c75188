"""FeatureCache: planes, slices, streams."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from sparseblock import FeatureCache, SparseBlockError
from sparseblock.cache import PlaneSpec

SPECS = [
    PlaneSpec("frame", 3, 9, 7, external=True),
    PlaneSpec("cat", 8, 9, 7, border=2),
    PlaneSpec("left", 5, 9, 7, parent="cat"),
    PlaneSpec("right", 3, 9, 7, parent="cat", offset=5),
]


def test_a_plane_is_the_frame_and_its_border_channels_last():
    state = FeatureCache(SPECS, streams=2)
    assert state["cat"].shape == (2, 8, 9, 7)
    assert state["cat"].stride() == (13 * 11 * 8, 1, 11 * 8, 8)
    assert state.nbytes == 2 * 13 * 11 * 8 * 4
    plane = state.planes[1]
    assert (plane.n, plane.h, plane.w, plane.c, plane.border) == (2, 9, 7, 8, 2)
    assert plane.data == state["cat"].data_ptr()
    assert (plane.stride_n, plane.stride_y, plane.stride_x, plane.stride_c) == (13 * 11 * 8, 11 * 8, 8, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_planes_have_a_dtype(dtype):
    state = FeatureCache([replace(spec, dtype=dtype) for spec in SPECS], streams=2)
    assert state["cat"].dtype == state["right"].dtype == dtype
    assert state.nbytes == 2 * 13 * 11 * 8 * 2
    assert state.planes[3].data == state.planes[1].data + 5 * 2


def test_a_slice_has_the_dtype_of_its_parent():
    specs = [SPECS[1], replace(SPECS[2], dtype=torch.float16)]
    with pytest.raises(SparseBlockError, match=r"'left' is torch\.float16 in its parent 'cat' of torch\.float32"):
        FeatureCache(specs)


def test_slices_share_the_memory_of_their_parent():
    state = FeatureCache(SPECS, streams=2)
    state["right"].fill_(3.0)
    assert (state["cat"][:, 5:] == 3.0).all() and (state["cat"][:, :5] == 0.0).all()
    assert state.planes[3].data == state.planes[1].data + 5 * 4
    assert state.planes[3].border == 2 and state.planes[3].c == 3


def test_planes_of_shared_memory_lie_where_they_say():
    specs = [PlaneSpec("a", 8, 3, 2, shared=0), PlaneSpec("own", 1, 3, 2), PlaneSpec("b", 1, 5, 1, shared=64)]
    state = FeatureCache(specs, streams=2)
    assert state.nbytes == 2 * (8 * 6 + 6) * 4
    state["a"].copy_(torch.arange(96).reshape(2, 3, 2, 8).permute(0, 3, 1, 2))
    assert state["b"].data_ptr() == state["a"].data_ptr() + 2 * 64
    assert state["b"].flatten().tolist() == list(range(32, 42))
    assert state.planes[2].data == state["b"].data_ptr()


def test_an_external_plane_lies_where_it_is_bound():
    state, frame = FeatureCache(SPECS), torch.zeros(1, 3, 9, 7)
    state.bind("frame", frame)
    assert state.planes[0].data == frame.data_ptr() and state.planes[0].stride_c == 63


def test_a_reset_forgets_one_stream_or_all():
    state = FeatureCache(SPECS, streams=3)
    state["cat"].fill_(1.0)
    state.frames[:] = [4, 5, 6]
    state.reset(1)
    assert state.frames == [4, 0, 6]
    assert state["cat"].sum(dim=(1, 2, 3)).tolist() == [504.0, 0.0, 504.0]
    state.reset()
    assert state.frames == [0, 0, 0] and not state["cat"].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FeatureCache([], streams=0), "FeatureCache: streams is 0; it must be a positive integer below 2**31"),
        (
            lambda: FeatureCache([], streams=True),
            "FeatureCache: streams is True; it must be a positive integer below 2**31",
        ),
        (
            lambda: FeatureCache([], streams=2**40),
            f"FeatureCache: streams is {2**40}; it must be a positive integer below 2**31",
        ),
        (
            lambda: FeatureCache([SPECS[1], SPECS[1]]),
            "FeatureCache: two planes are called 'cat'; names must be unique",
        ),
        (
            lambda: FeatureCache([SPECS[0], SPECS[0]]),
            "FeatureCache: two planes are called 'frame'; names must be unique",
        ),
        (
            lambda: FeatureCache([PlaneSpec("a", 0, 9, 7)]),
            "FeatureCache: plane 'a' has c=0 h=9 w=7 border=0 pitch=None; c, h and w must be positive, border not "
            "negative and pitch not less than c",
        ),
        (
            lambda: FeatureCache([PlaneSpec("a", 9, 9, 7, pitch=8)]),
            "FeatureCache: plane 'a' has c=9 h=9 w=7 border=0 pitch=8; c, h and w must be positive, border not "
            "negative and pitch not less than c",
        ),
        (
            lambda: FeatureCache([SPECS[2]]),
            "FeatureCache: plane 'left' is a slice of 'cat', which is no earlier plane",
        ),
        (
            lambda: FeatureCache([SPECS[1], PlaneSpec("a", 5, 9, 7, parent="cat", offset=4)]),
            "FeatureCache: plane 'a' is channels 4..9 at 9x7, which do not lie in its parent 'cat' [c=8 h=9 w=7]",
        ),
        (
            lambda: FeatureCache([PlaneSpec("a", 1, 9, 7, border=1, shared=64)]),
            "FeatureCache: plane 'a' has shared=64 border=1 parent=None external=False; "
            "a plane in shared memory lies at a multiple of 64 bytes and has no parent, a border only with rims, "
            "and is not external",
        ),
        (
            lambda: FeatureCache([PlaneSpec("a", 2, 900, 70)], streams=10**9),
            "FeatureCache: planes for 1000000000 streams take 504000000000000 bytes, more memory than there is on "
            "cpu; use fewer streams or smaller frames",
        ),
        (
            lambda: FeatureCache([PlaneSpec(name, 1, 1, 1) for name in "abcd"])["nope"],
            "FeatureCache: there is no plane 'nope'; there are 'a', 'b', 'c', ...",
        ),
        (
            lambda: FeatureCache(SPECS).bind("cat", torch.zeros(1, 8, 9, 7)),
            "FeatureCache.bind: 'cat' is no external plane; there are 'frame'",
        ),
        (
            lambda: FeatureCache(SPECS[1:]).bind("frame", torch.zeros(1, 3, 9, 7)),
            "FeatureCache.bind: 'frame' is no external plane; there are none",
        ),
        (
            lambda: FeatureCache(SPECS, streams=2).bind("frame", torch.zeros(1, 3, 9, 7)),
            "FeatureCache.bind: 'frame' is given torch.float32 [1, 3, 9, 7] on cpu; it must be torch.float32 "
            "[2, 3, 9, 7] on cpu",
        ),
        (
            lambda: FeatureCache(SPECS).bind("frame", torch.zeros(1, 3, 9, 7, dtype=torch.float64, device="meta")),
            "FeatureCache.bind: 'frame' is given torch.float64 [1, 3, 9, 7] on meta; it must be torch.float32 "
            "[1, 3, 9, 7] on cpu",
        ),
        (
            lambda: FeatureCache(SPECS).bind("frame", [0.0]),
            "FeatureCache.bind: 'frame' is given list; it must be torch.float32 [1, 3, 9, 7] on cpu",
        ),
        (
            lambda: FeatureCache(SPECS).reset(1),
            "FeatureCache.reset: stream is 1; it must be None or in 0..0",
        ),
    ],
)
def test_wrong_input_is_one_clear_line(call, message):
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        call()


def test_on_a_device_every_plane_is_there_and_none_is_read_back():
    """A tensor on "meta" has no values: to read one raises."""
    specs = [PlaneSpec("a", c=3, h=5, w=6, border=1), PlaneSpec("b", c=2, h=5, w=6, parent="a", offset=1)]
    cache = FeatureCache([*specs, PlaneSpec("c", c=3, h=5, w=6, shared=0)], streams=2, device="meta")
    cache.reset(1)
    cache.reset()
    for state in (cache, cache.fork()):
        assert {state[name].device.type for name in "abc"} == {"meta"}
