"""Faults in the CUDA kernels that list and pack blocks, move pixels or change them one by one are caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from planted import check_caught, check_launched, contracts, passed

from sparseblock import ops
from sparseblock.backends.cuda.blocks_from_mask import blocks_from_mask
from sparseblock.testing import cases

# (file, what stands there, what is put there instead)
FAULTS = {
    "shuffles_columns_first": ("shuffle.cu", "down * factor + along;", "along * factor + down;"),
    "unshuffles_columns_first": (
        "shuffle.cu",
        "y * factor + down, x * factor + along",
        "y * factor + along, x * factor + along",
    ),
    "shuffles_back": (
        "shuffle.cu",
        "c = by_factor.divide(c, place);",
        "place = Divisor(channels).divide(c, c);",
    ),
    "pads_at_the_other_side": ("pad.cu", "y - pad.top", "y"),
    "pads_with_zero": ("pad.cu", "from_float<T>(pad.value)", "from_float<T>(0.0f)"),
    "repeats_the_edge_of_a_mirror": ("pad.h", "2 * (size - 1)", "2 * size"),
    "forgets_the_residual": ("pointwise.cu", "finish(values, combined", "finish(values, false"),
    "takes_the_first_channels_parameters": ("pointwise.cu", "epilogue, c)", "epilogue, 0)"),
    "adds_where_it_multiplies": ("epilogue.h", "e.combine == SB_MULTIPLY", "false"),
    "forgets_the_shift": ("epilogue.h", "parameters<N>(e.shift,", "parameters<N>(nullptr,"),
    "loses_nan_in_relu": ("epilogue.h", "low > v ? low : v", "v > low ? v : low"),
    "takes_another_activation": ("epilogue.h", "v * hard_sigmoid(v)", "sigmoid(v, v)"),
    "takes_another_pixel": ("interpolate.h", "minimum((int)position, size - 1)", "(int)(position + 0.5f)"),
    "ignores_half_a_pixel": ("interpolate.h", "scale * ((float)place + 0.5f) - 0.5f", "scale * (float)place"),
    "takes_the_near_row_twice": ("interpolate.cu", "pixel<T>(in, n, y.far, 0)", "pixel<T>(in, n, y.near, 0)"),
    "blends_rows_by_the_columns_weight": (
        "interpolate.cu",
        "blend(top, bottom, down)",
        "blend(top, bottom, along)",
    ),
    "gathers_without_the_halo": ("gather.cu", "blocks.block_w - halo", "blocks.block_w"),
    "gathers_past_the_frame": ("gather.cu", "y >= 0 && y < in.h && ", "y >= 0 && "),
    "gathers_before_the_frame": ("gather.cu", "x >= 0 && x < in.w", "x < in.w"),
    "gathers_the_first_image": ("gather.cu", "n = index[0]", "n = 0 * index[0]"),
    "scatters_past_the_frame": ("scatter.cu", "y < out.h && ", ""),
    "scatters_past_the_count": ("scatter.cu", "*blocks.count", "*blocks.count + 1"),
    "lists_no_rest": (
        "blocks_from_mask.cu",
        "run = ceil_div(all, thread_count())",
        "run = maximum(all / thread_count(), 1)",
    ),
    "counts_its_own_blocks_twice": ("blocks_from_mask.cu", "place = upto - active", "place = upto"),
    "scans_half_a_warp": ("blocks_from_mask.cu", "delta < WARP;", "delta < WARP / 2;"),
    "forgets_the_warps_before": ("blocks_from_mask.cu", "place += warps[warp]", "place += 0"),
    "lists_columns_first": ("blocks_from_mask.cu", "(i / cols % rows)", "(i % rows)"),
}


def blurred(*, x, blocks, out, **_):
    """avg_pool2d of 3x3 pixels, by dense code on packed blocks."""
    capacity, (height, width) = len(blocks.index), blocks.block
    layout = {"dtype": x.dtype, "device": x.device, "memory_format": torch.channels_last}
    packed = torch.empty(capacity, x.shape[1], height + 2, width + 2, **layout)
    means = F.avg_pool2d(ops.gather(x, blocks, packed, halo=1), 3, 1)
    return ops.scatter(means.contiguous(memory_format=torch.channels_last), blocks, out)


def samples():
    """Maps in blocks, some of them active, the last ones partial; one with NaN."""
    x = torch.randn(2, 8, 21, 26, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[0, 0, 4, 4] = float("nan")
    window = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    yield from (
        (cases.activation(broken, activation="relu"), (4, 5)),
        (cases.add(x, x.flip(2), activation="hardswish"), (4, 5)),
        (cases.mul(x, x.flip(2)), (4, 5)),
        (cases.affine(x, torch.arange(1.0, 9.0), torch.arange(8.0)), (4, 5)),
        (cases.pixel_shuffle(x, upscale_factor=2), (4, 5)),
        (cases.pixel_unshuffle(x[:, :, :20].clone(), downscale_factor=2), (4, 5)),
        (cases.channel_shuffle(x, groups=4), (4, 5)),
        (cases.pad(x, padding=((1, 2), (3, 4)), value=1.5), (4, 5)),
        (cases.pad(x, padding=((1, 2), (3, 4)), mode="reflect"), (4, 5)),
        (cases.interpolate(x, size=(33, 40), mode="nearest"), (4, 5)),
        (cases.interpolate(x, size=(33, 40), mode="bilinear"), (4, 5)),
        (replace(cases.avg_pool2d(x, **window), call=blurred), (4, 5)),
    )


def checks():
    yield from contracts(samples())
    for shape in ((2, 3, 5), (3, 41, 29)):
        yield partial(check_blocks_from_mask, torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.5)


def check_blocks_from_mask(mask):
    index, count = blocks_from_mask(mask)
    assert index[: int(count)].tolist() == mask.nonzero().tolist()


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(checks(), emulated_library))


def test_without_a_fault_the_samples_pass(passing):
    check_launched(FAULTS, passing)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path)
