"""conv2d on Hopper, where its kernel has edges: units, boxes, rings of stages, tiles, few channels, epilogues."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparseblock import BlockSet, backend, ops
from sparseblock.backends.cuda import conv2d as module
from sparseblock.backends.cuda import conv2d_wgmma, launch
from sparseblock.backends.cuda.tensor_map import tensor_map
from sparseblock.errors import SparseBlockError
from sparseblock.testing import Guard, assert_identical, cases, channels_last, check_contract, check_independence
from sparseblock.testing.device import on_device

HALVES = [torch.float16, torch.bfloat16]
ALIGNED = Guard(channels=8)  # pixels begin at multiples of 16 bytes


def normal(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def in_blocks(case, block, density=0.6):
    n, _, h, w = case.out_shape
    grid = n, -(-h // block[0]), -(-w // block[1])
    mask = torch.rand(grid, generator=torch.Generator().manual_seed(1)) < density
    mask[-1, -1, -1] = True  # which lies partly outside
    return replace(case, blocks=BlockSet.from_mask(mask, block))


@pytest.fixture
def on_cuda(hopper):
    """Makes a case run on the cuda backend."""
    with backend("cuda"):
        yield lambda case: replace(case, call=on_device(case.call, hopper))


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that are launched, in order."""
    names, real = [], launch.launch

    def noted(kernel, **rest):
        names.append(kernel)
        real(kernel, **rest)

    for place in (launch, module, conv2d_wgmma):
        monkeypatch.setattr(place, "launch", noted)
    return names


# Shape of x, of the weight, of a block, and the rest.
EDGES = {
    "one box for all taps": ((1, 64, 19, 21), (64, 64, 3, 3), (16, 16), {"padding": (1, 1)}),
    "boxes of eight pixels, images, tiles side by side": (
        (2, 72, 17, 19),
        (136, 72, 3, 3),
        (8, 8),
        {"padding": (1, 1)},
    ),
    "more channels than the rings hold": ((1, 264, 9, 17), (24, 264, 3, 3), (8, 8), {"padding": (1, 1)}),
    "a tile of many small units": ((2, 40, 12, 15), (40, 40, 3, 3), (4, 4), {"padding": (1, 1)}),
    "blocks of a pixel": ((1, 64, 7, 9), (64, 64, 3, 3), (1, 1), {"padding": (1, 1)}),
    "blocks of seven pixels": ((1, 64, 13, 20), (64, 64, 5, 5), (7, 7), {"padding": (2, 2)}),
    "blocks larger than the frame": ((1, 16, 5, 6), (32, 16, 3, 3), (64, 64), {"padding": (1, 1)}),
    "stride 2": ((1, 64, 33, 31), (128, 64, 3, 3), (8, 8), {"padding": (1, 1), "stride": (2, 2)}),
    "strides that differ": ((1, 32, 25, 31), (64, 32, 3, 1), (5, 6), {"padding": (2, 0), "stride": (3, 8)}),
    "dilation 2": ((1, 64, 20, 20), (64, 64, 3, 3), (16, 16), {"padding": (2, 2), "dilation": (2, 2)}),
    "dilation 12": ((1, 64, 20, 20), (64, 64, 3, 3), (16, 16), {"padding": (12, 12), "dilation": (12, 12)}),
    "19 outputs of 16 channels": ((1, 16, 20, 20), (19, 16, 1, 1), (8, 8), {}),
    "few channels": ((2, 3, 23, 29), (48, 3, 7, 7), (8, 8), {"padding": (3, 3), "stride": (2, 2)}),
    "one channel": ((1, 1, 24, 25), (64, 1, 3, 3), (16, 16), {"padding": (1, 1), "stride": (1, 2)}),
    "six channels, blocks of seven": ((1, 6, 25, 29), (32, 6, 3, 3), (7, 7), {"padding": (1, 1), "stride": (2, 2)}),
    "lines of few channels apart": ((1, 3, 21, 20), (24, 3, 3, 4), (8, 8), {"stride": (2, 2), "dilation": (3, 1)}),
}


def convolved(edge, dtype, **rest):
    shape, weight, block, window = EDGES[edge]
    return in_blocks(cases.conv2d(normal(*shape, dtype=dtype), normal(*weight, dtype=dtype), **window, **rest), block)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge, dtype, on_cuda, launched):
    bias = normal(EDGES[edge][1][0], dtype=torch.float32)
    plain = convolved(edge, dtype, bias=bias)
    fused = convolved(edge, dtype, residual=normal(*plain.out_shape, dtype=dtype), activation="relu")
    check_contract(on_cuda(plain), Guard(channels=0))
    check_contract(on_cuda(fused), ALIGNED)
    assert {name.split("_")[1] for name in launched} <= {"wgmma", "windows"}


@pytest.mark.parametrize("edge", ["boxes of eight pixels, images, tiles side by side", "few channels"])
def test_a_block_depends_on_no_other(edge, on_cuda):
    check_independence(on_cuda(convolved(edge, torch.bfloat16)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "epilogue",
    [
        {"activation": "hardswish"},
        {"activation": "prelu", "slope": torch.arange(-2.0, 22.0) / 8},
        {"combine": "mul"},
        {"combine": "mul", "activation": "relu"},
        {"activation": "relu"},
    ],
    ids=lambda epilogue: " ".join(map(str, epilogue.values())).split(" tensor")[0],
)
def test_epilogues(epilogue, dtype, on_cuda, launched):
    """Where pixels of out and of the residual are aligned, and where the three channels before them are skipped."""
    x, weight, residual = (normal(*shape, dtype=dtype) for shape in ((1, 16, 9, 11), (24, 16, 1, 1), (1, 24, 9, 11)))
    case = in_blocks(cases.conv2d(x, weight, normal(24, dtype=torch.float32), residual, **epilogue), (4, 5))
    check_contract(on_cuda(case), ALIGNED)
    few = normal(1, 3, 9, 11, dtype=dtype), normal(24, 3, 3, 3, dtype=dtype)
    check_contract(on_cuda(in_blocks(cases.conv2d(*few, residual=residual, padding=(1, 1), **epilogue), (4, 5))))
    assert {name.split("_")[1] for name in launched} == {"windows", "wgmma"}


def test_a_residual_of_one_pixel_and_of_one_channel_is_added_to_all(on_cuda):
    x, weight = normal(2, 16, 9, 11), normal(24, 16, 1, 1)
    for shape in ((2, 24, 1, 1), (2, 1, 9, 11)):
        whole = normal(*shape).expand(2, 24, 9, 11)
        case = on_cuda(in_blocks(cases.conv2d(x, weight, residual=whole.contiguous()), (4, 5)))
        outs = []
        for residual in (channels_last(case.maps["residual"]), normal(*shape)):
            out = channels_last(torch.zeros(case.out_shape, dtype=torch.float16))
            outs.append(case.run({"x": channels_last(x), "residual": residual}, case.blocks, out))
        assert_identical(*outs)


def integers(*shape: int) -> torch.Tensor:
    """Whose sums of products are whole in float16, in any order."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(sum(shape))).half()


@pytest.mark.parametrize(("channels", "kernels"), [(16, {"conv2d_narrow"}), (3, {"conv2d_windows", "conv2d_wgmma"})])
@pytest.mark.parametrize("shape", [(1, 9, 11), (2, 1, 11), (2, 9, 1)], ids=["images", "rows", "columns"])
def test_expanded_maps_are_not_described_to_the_driver(shape, channels, kernels, on_cuda, launched):
    """It documents no stride of 0."""
    x, weight = integers(shape[0], channels, *shape[1:]), integers(24, channels, 3, 3)
    expanded = channels_last(x).expand(2, channels, 9, 11)
    case = on_cuda(in_blocks(cases.conv2d(channels_last(expanded.clone()), weight, padding=(1, 1)), (4, 5)))
    outs = []
    for given in (expanded, case.maps["x"]):
        launched.clear()
        outs.append(case.run({"x": given}, case.blocks, channels_last(torch.zeros(case.out_shape, dtype=x.dtype))))
        names = {"_".join(name.split("_")[:2]) for name in launched}
        assert names == (kernels if given is expanded or channels == 3 else {"conv2d_wgmma"})
    assert_identical(*outs)


def test_the_stand_in_refuses_what_the_driver_does_not_document():
    x = torch.zeros(4096, dtype=torch.float16)
    sizes, box, steps = (64, 4, 4, 2), (64, 4, 4, 1), (1, 1, 1, 1)
    tensor_map(x, sizes, (64, 256, 1024), box, steps)
    tensor_map(x, (64, 4, 4, 1), (64, 256, 0), box, steps)  # an axis of one has no stride
    for strides in ((64, 256, 0), (0, 256, 1024), (68, 256, 1024), (64, 256, 1 << 39)):
        with pytest.raises(SparseBlockError, match="multiples of 16, and strides above 0 and below 2"):
            tensor_map(x, sizes, strides, box, steps)
    with pytest.raises(SparseBlockError, match="multiples of 16"):
        tensor_map(x[1:], sizes, (64, 256, 1024), box, steps)


def result(case):
    """Of all blocks."""
    out = channels_last(torch.zeros(case.out_shape, dtype=case.dtype))
    return case.run({name: channels_last(x) for name, x in case.maps.items()}, case.blocks, out)


@pytest.mark.parametrize("shape", [(1, 72, 18, 20), (1, 3, 18, 20)], ids=["channels", "windows"])
def test_bits_depend_on_no_cut(shape, on_cuda, monkeypatch):
    """On the size of blocks, and so of units and boxes, and of tiles, by how many groups there are for them."""
    case = cases.conv2d(normal(*shape), normal(72, shape[1], 3, 3), padding=(1, 1), stride=(1, 2 - shape[1] // 72))
    outs = []
    for groups in (1, 100):
        monkeypatch.setattr(launch, "multiprocessors", lambda _, groups=groups: groups)
        outs += [result(on_cuda(in_blocks(case, (side, side), density=2))) for side in (4, 8, 16)]
    for out in outs[1:]:
        assert_identical(out, outs[0])


@pytest.mark.parametrize(
    ("in_channels", "channels", "kernel"),
    [(64, 64, "64x64_f16"), (32, 128, "64x32_f16"), (40, 72, "128x64_f16")],
)
def test_columns_and_depth_are_the_channels(in_channels, channels, kernel):
    assert conv2d_wgmma._kernel(in_channels, channels, torch.float16) == f"conv2d_wgmma_{kernel}"


def cut(sides=(16, 16), kernel=(3, 3), stride=(1, 1), dilation=(1, 1), vectors=True):
    return conv2d_wgmma._cut(sides, kernel, stride, dilation, vectors)


def test_boxes_are_shared_where_taps_overlap():
    whole = cut()
    assert (whole.width * whole.height, whole.shared, whole.box) == (128, True, (whole.width + 2, whole.height + 2))
    for given in ({"stride": (2, 2)}, {"kernel": (1, 1)}, {"dilation": (12, 12)}):
        apart = cut(**given)
        assert not apart.shared and not apart.gathered
        assert apart.box == (apart.width, apart.height)


def test_small_units_are_gathered():
    assert cut((4, 4)).gathered  # a row of a matrix would have pixels of two lines of a box for all taps
    assert not cut((4, 4), vectors=False).gathered
    assert not cut((8, 8), kernel=(1, 1)).gathered


def test_every_cut_has_its_rings_and_covers_a_block():
    for side in (1, 3, 4, 7, 8, 16, 20, 64, 300):
        assert max(cut((1, side), (1, 3), (8, 8)).box) * 8 <= 256
        for kernel, stride, dilation in (((1, 1), (1, 1), (1, 1)), ((3, 3), (1, 1), (2, 2)), ((7, 1), (2, 8), (1, 1))):
            for vectors in (False, True):
                chosen = cut((side, side), kernel, stride, dilation, vectors)
                for rows, cols in ((256, 128), (256, 64), (128, 64)):
                    assert min(chosen.stages(rows, cols)) >= (6 if chosen.gathered and rows == 128 else 2)
                assert chosen.width * chosen.height in (4, 8, 16, 32, 64, 128)  # a tile's units are a warp's at most
                spans = zip(chosen.box, (1, 1) if chosen.shared else stride[::-1], strict=True)
                assert all(
                    length * step <= 256 for length, step in spans
                )  # what a copy may reach, or the driver refuses it


@pytest.mark.parametrize("block", [4, 16])
def test_odd_channels_are_taken_where_pixels_are_aligned(block, hopper, launched):
    """And what lies behind them is read by nobody."""
    weight, out = normal(48, 33, 3, 3).to(hopper), torch.zeros(1, 48, 20, 21, dtype=torch.float16, device=hopper)
    x = channels_last(torch.full((1, 40, 20, 21), float("nan"), dtype=torch.float16, device=hopper))[:, :33]
    x.copy_(normal(1, 33, 20, 21))
    blocks = BlockSet.all(1, -(-20 // block), -(-21 // block), block, device=hopper)
    with backend("cuda"):
        aligned = ops.conv2d(x, weight, None, blocks, channels_last(out), padding=(1, 1)).clone()
        assert launched[-1] == "conv2d_wgmma_64x64_f16"
        whole = channels_last(torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 7)))
        filled = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, 7))
        assert_identical(ops.conv2d(whole, filled, None, blocks, channels_last(out), padding=(1, 1)), aligned)


ELSEWHERE = {
    "groups": ({"groups": 2}, (1, 32, 9, 10), (48, 16, 3, 3)),
    "depthwise": ({"groups": 32}, (1, 32, 9, 10), (32, 1, 3, 3)),
    "mirrored": ({"padding": (1, 1), "padding_mode": "reflect"}, (1, 32, 9, 10), (48, 32, 3, 3)),
    "steps of more than eight pixels": ({"stride": (1, 9)}, (1, 32, 9, 30), (48, 32, 3, 3)),
    "few channels, dilated": ({"dilation": (1, 2)}, (1, 3, 9, 10), (48, 3, 3, 3)),
    "few channels, windows that begin between": ({}, (1, 5, 9, 40), (48, 5, 3, 17)),
    "odd channels, not few": ({}, (1, 33, 9, 10), (48, 33, 3, 3)),
}


def kernels_of(case, on_cuda, launched):
    """Those that compute a case, which is right."""
    del launched[:]
    check_contract(on_cuda(in_blocks(case, (4, 5))), Guard(channels=0))
    return set(launched)


@pytest.mark.parametrize("what", ELSEWHERE)
def test_what_it_cannot_do_is_done_by_the_other_kernels(what, on_cuda, launched):
    rest, shape, weight = ELSEWHERE[what]
    taken = {"groups": "conv2d_narrow_f16", "depthwise": "conv2d_depthwise_f16"}.get(what, "conv2d_f16")
    assert kernels_of(cases.conv2d(normal(*shape), normal(*weight), **rest), on_cuda, launched) == {taken}


def test_float32_and_transposed_are_done_by_the_other_kernels(on_cuda, launched):
    x, weight = normal(1, 32, 9, 10), normal(48, 32, 3, 3)
    assert kernels_of(cases.conv2d(x.float(), weight.float()), on_cuda, launched) == {"conv2d_f32"}
    assert kernels_of(cases.conv_transpose2d(x, weight.transpose(0, 1)), on_cuda, launched) == {"conv2d_f16"}


def test_it_is_used(on_cuda, launched):
    weight = normal(48, 32, 3, 3)
    used = {
        32: {"conv2d_wgmma_64x32_f16"},
        3: {"conv2d_windows_8_f16", "conv2d_wgmma_64x32_f16"},
    }
    for channels, names in used.items():
        case = cases.conv2d(normal(1, channels, 9, 10), weight[:, :channels].contiguous())
        assert kernels_of(case, on_cuda, launched) == names


@pytest.mark.parametrize("channels", [16, 3])
def test_a_weight_is_packed_once_and_anew_when_it_was_changed_in_place(channels, hopper, monkeypatch):
    packed, pack = [], conv2d_wgmma._packed
    monkeypatch.setattr(conv2d_wgmma, "_packed", lambda *given: packed.append(given) or pack(*given))
    x, weight = channels_last(normal(1, channels, 6, 8).to(hopper)), normal(8, channels, 3, 3).to(hopper)
    out = channels_last(torch.zeros(1, 8, 4, 6, dtype=torch.float16, device=hopper))
    everything = BlockSet.all(1, 1, 1, 8, device=hopper)
    with backend("cuda"):
        before = [ops.conv2d(x, weight, None, everything, out).clone() for _ in range(2)]
        assert len(packed) == 1
        weight.mul_(2)
        assert_identical(ops.conv2d(x, weight, None, everything, out).cpu(), (2 * before[1]).cpu())
    assert len(packed) == 2
