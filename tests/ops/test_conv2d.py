"""conv2d and conv_transpose2d where the kernel changes its path: tiles, units, panels, chunks, windows, borders."""

from __future__ import annotations

from ctypes import byref
from dataclasses import replace

import pytest
import torch

from sparseblock import BlockSet, backend, ops
from sparseblock.backends.cpu import native, packed_weight
from sparseblock.cache import FeatureCache, PlaneSpec
from sparseblock.testing import (
    assert_identical,
    assert_matches,
    cases,
    channels_last,
    check_contract,
    check_independence,
    tolerance,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(sum(shape)))


def some_blocks(case, block):
    n, _, h, w = case.out_shape
    mask = torch.rand(n, -(-h // block[0]), -(-w // block[1]), generator=generator()) < 0.5
    return replace(case, blocks=BlockSet.from_mask(mask, block))


EDGES = {
    "long sums, several panels of weights": (
        cases.conv2d(normal(1, 256, 9, 11), normal(40, 256, 3, 3), padding=(1, 1)),
        (4, 4),
    ),
    "strips of several columns": (cases.conv2d(normal(1, 8, 40, 150), normal(12, 8, 3, 3), padding=(1, 1)), (20, 70)),
    "many blocks in one chunk": (cases.conv2d(normal(2, 64, 20, 24), normal(64, 64, 3, 3), padding=(1, 1)), (2, 2)),
    "units of output channels": (cases.conv2d(normal(1, 5, 8, 8), normal(100, 5, 1, 1)), (3, 3)),
    "wide depthwise, dilated": (
        cases.conv2d(normal(1, 100, 13, 17), normal(100, 1, 5, 5), padding=(4, 4), dilation=(2, 2), groups=100),
        (4, 5),
    ),
    "depthwise multiplier": (cases.conv2d(normal(1, 6, 9, 9), normal(18, 1, 3, 3), padding=(1, 1), groups=6), (4, 4)),
    "stem 7x7 stride 2": (
        cases.conv2d(normal(1, 3, 37, 51), normal(64, 3, 7, 7), stride=(2, 2), padding=(3, 3)),
        (8, 8),
    ),
    "dilation beyond the block": (
        cases.conv2d(normal(1, 12, 40, 40), normal(12, 12, 3, 3), padding=(16, 16), dilation=(16, 16)),
        (4, 4),
    ),
    "padding beyond the frame": (cases.conv2d(normal(1, 4, 3, 3), normal(4, 4, 3, 3), padding=(5, 5)), (2, 2)),
    "stride beyond the kernel": (cases.conv2d(normal(1, 4, 17, 17), normal(4, 4, 1, 1), stride=(3, 3)), (2, 2)),
    "transposed 4x4 stride 2": (
        cases.conv_transpose2d(normal(1, 24, 9, 11), normal(24, 20, 4, 4), stride=(2, 2), padding=(1, 1)),
        (4, 4),
    ),
    "transposed 4x4 stride 4": (
        cases.conv_transpose2d(normal(1, 40, 5, 6), normal(40, 33, 4, 4), stride=(4, 4)),
        (8, 8),
    ),
    "transposed with phases that no tap reaches": (
        cases.conv_transpose2d(normal(1, 3, 5, 6), normal(3, 4, 1, 1), normal(4), stride=(3, 3)),
        (2, 5),
    ),
    "transposed depthwise": (
        cases.conv_transpose2d(normal(1, 20, 6, 6), normal(20, 1, 3, 3), stride=(2, 2), padding=(1, 1), groups=20),
        (4, 4),
    ),
}

SUBNORMAL = normal(12, 8, 3, 3) * 3e-39
EDGES |= {
    "subnormal weights": (cases.conv2d(normal(1, 8, 12, 16) * 1e3, SUBNORMAL, padding=(1, 1)), (4, 4)),
    "subnormal pixels": (cases.conv2d(SUBNORMAL[:1, :, :3, :3], normal(12, 8, 3, 3) * 1e3), (1, 1)),
    "subnormal weights by Winograd": (
        cases.conv2d(normal(1, 8, 12, 16) * 1e3, SUBNORMAL, padding=(1, 1), algorithm="winograd_4x4"),
        (4, 4),
    ),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_the_kernel(edge):
    case, block = EDGES[edge]
    for active in (case, some_blocks(case, block)):
        check_contract(active)
        check_independence(active)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("pitch", [64, 80, 96])
@pytest.mark.parametrize(
    ("algorithm", "dtype"),
    [
        ("direct", torch.float32),
        ("direct", torch.bfloat16),
        ("winograd_4x4", torch.float32),
        ("winograd_4x4", torch.bfloat16),
        pytest.param("bf16_amx", torch.bfloat16, marks=pytest.mark.algorithm("bf16_amx")),
    ],
)
def test_a_map_larger_than_the_caches_has_the_bits_of_its_parts(algorithm, dtype, pitch, in_place):
    """Outputs of 32 MiB are stored past the caches, where pixels of `pitch` channels are lines of these."""
    rows, cols, half = 512, 64 // dtype.itemsize * 16, 256
    x, weight = channels_last(normal(1, 4, rows, cols).to(dtype)), normal(64, 4, 3, 3)
    outs = []
    for masks in ([[True, True]], [[True, False], [False, True]]):
        room = normal(1, rows, cols, pitch).to(dtype)
        out = room.permute(0, 3, 1, 2)[:, :64]
        for mask in masks:
            blocks = BlockSet.from_mask(torch.tensor(mask).reshape(1, 2, 1), (half, cols))
            residual = out if in_place else None
            ops.conv2d(x, weight, None, blocks, out, padding=1, residual=residual, algorithm=algorithm)
        outs.append(room)
    assert_identical(*outs)


def test_pixels_may_share_channels_with_the_next():
    """Of half as many channels: at stride 2 those that are read follow each other."""
    memory, weight = normal(1, 8, 17, 8).bfloat16(), normal(24, 16, 1, 1)
    x = memory.as_strided((1, 16, 8, 16), (0, 1, 17 * 8, 8))
    outs = [channels_last(torch.zeros(1, 24, 4, 8, dtype=torch.bfloat16)) for _ in range(2)]
    blocks = BlockSet.from_mask(torch.tensor([[[False, True], [True, True]]]), (2, 4))
    for out, lying in zip(outs, (x, channels_last(x.clone())), strict=True):
        ops.conv2d(lying, weight, None, blocks, out, stride=2)
    assert_identical(*outs)


@pytest.mark.parametrize("border", [0, 1, 2])
def test_a_border_of_zeros_changes_no_bit(border):
    """A plane with a border is read past the frame; a tensor without one through a window of zeros."""
    case = some_blocks(cases.conv2d(normal(2, 7, 19, 23), normal(9, 7, 3, 3), normal(9), padding=(1, 1)), (6, 6))
    expected = case.run({"x": channels_last(case.maps["x"])}, case.blocks, channels_last(torch.zeros(case.out_shape)))
    state = FeatureCache([PlaneSpec("x", 7, 19, 23, border), PlaneSpec("out", 9, 19, 23, border)], streams=2)
    state["x"].copy_(case.maps["x"])
    weight, bias = case.keywords["weight"], case.keywords["bias"]
    conv = native.Conv2d(7, 9, 1, 3, 3, 1, 1, 1, 1, 1, 1, 0)
    packed = packed_weight.pack(conv, weight)
    conv.packed_weight = packed.data_ptr()
    native.lib().sb_conv2d_run(
        byref(conv),
        byref(native.epilogue_of(bias=bias)),
        byref(state.planes[0]),
        None,
        byref(native.blocks_of(case.blocks.index, case.blocks.count, case.blocks.block)),
        byref(state.planes[1]),
        1,
    )
    assert_identical(state["out"], expected)


class TestPackedWeight:
    """The packed copy of a weight follows the weight."""

    def result(self, weight, **geometry):
        x = channels_last(normal(1, 4, 6, 6))
        return ops.conv2d(x, weight, None, BlockSet.all(1, 1, 1, 6), channels_last(torch.zeros(1, 5, 6, 6)), **geometry)

    def test_is_made_once(self, monkeypatch):
        weight, packs = normal(5, 4, 1, 1), []
        pack = packed_weight.pack
        monkeypatch.setattr(packed_weight, "pack", lambda *a: packs.append(a) or pack(*a))
        self.result(weight)
        self.result(weight)
        assert len(packs) == 1

    def test_follows_a_change_in_place(self):
        weight = normal(5, 4, 1, 1)
        self.result(weight)
        weight.mul_(2)
        assert_identical(self.result(weight), self.result(weight.clone()))

    def test_follows_an_exchange_of_the_memory(self):
        weight = torch.nn.Parameter(normal(5, 4, 1, 1), requires_grad=False)
        self.result(weight)
        weight.data = normal(5, 4, 1, 1) + 1
        assert_identical(self.result(weight), self.result(weight.clone()))

    def test_is_made_for_each_geometry(self):
        weight = normal(5, 4, 3, 3)
        expected = self.result(weight.clone(), padding=2, dilation=2)
        self.result(weight, padding=1)
        assert_identical(self.result(weight, padding=2, dilation=2), expected)

    def test_of_inference_mode_is_correct(self):
        with torch.inference_mode():
            weight = normal(5, 4, 1, 1)
            self.result(weight)
            weight.mul_(2)
            assert_identical(self.result(weight), self.result(weight.clone()))


@pytest.mark.parametrize("every", [1, 2], ids=["weight", "every second row of a weight"])
def test_the_reference_convolves_a_channel_of_a_larger_map(every):
    """Where an axis has one element torch's own convolution took its stride for a layout, and read other memory."""
    x, weight = normal(2, 16, 5, 16).permute(0, 3, 1, 2)[:, :1], normal(40, 1, 3 * every, 5)[:, :, ::every]
    found = []
    for dtype in (torch.float32, torch.float64):
        out = channels_last(torch.zeros(2, 40, 14, 1, dtype=dtype))
        given = (x.to(dtype), weight.to(dtype)) if dtype == torch.float64 else (x, weight)
        with backend("reference"):
            found.append(ops.conv2d(*given, None, BlockSet.all(2, 4, 1, 4), out, stride=(1, 2)))
    assert_matches(found[0], found[1], tolerance(15, x, weight))
