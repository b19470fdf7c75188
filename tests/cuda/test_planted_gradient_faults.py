"""Faults in the CUDA kernels of gradients are caught: these are the reference's."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from planted import check_caught, check_launched, in_blocks, passed

from sparseblock import ops
from sparseblock.testing import cases, tolerance
from sparseblock.testing.gradients import check_gradients, whole

# (file, what stands there, what is put there instead)
FAULTS = {
    "leaves_the_last_pixel_of_a_share": ("conv2d_weight_grad.h", "first + size, pixels", "first + size - 1, pixels"),
    "leaves_the_last_share": (
        "conv2d_weight_grad.h",
        "minimum(i * size, pixels)",
        "i == shares - 1 ? pixels : i * size",
    ),
    "sums_below_the_frame": ("conv2d_weight_grad.h", "y < region.y1 && ", ""),
    "stays_in_a_block": ("conv2d_weight_grad.h", "place -= area, ++block", "place -= area"),
    "forgets_the_gradients_halo_above": ("conv2d_weight_grad.cu", "|| y < 0 || y >= in.h", "|| y <= 0 || y >= in.h"),
    "forgets_what_lies_beside_the_frame": ("conv2d_weight_grad.cu", "x < 0 || x >= in.w", "x >= in.w"),
    "forgets_the_stride_of_the_gradient": ("conv2d_weight_grad.cu", "left = x * conv.stride_w", "left = x"),
    "walks_down_the_taps": ("conv2d_weight_grad.cu", "tap % conv.kernel_w *", "tap / conv.kernel_w *"),
    "sums_the_first_image": (
        "conv2d_weight_grad.cu",
        "pixel<const float>(in, n, 0, 0)",
        "pixel<const float>(in, 0, 0, 0)",
    ),
    "takes_the_first_groups_inputs": (
        "conv2d_weight_grad.cu",
        "(int64_t)tile.group * tile.in_group + ",
        "",
    ),
    "takes_the_first_groups_gradients": (
        "conv2d_weight_grad.cu",
        "row = (int64_t)tile.group * tile.out_group +",
        "row = ",
    ),
    "waits_for_pixels_too_little": ("conv2d_weight_grad.cu", "wait_copies<STAGES - 2>", "wait_copies<STAGES - 1>"),
    "multiplies_before_all_have_copied": ("conv2d_weight_grad.cu", "barrier(); /* the chunk", "/* the chunk"),
    "copies_over_what_is_multiplied": ("conv2d_weight_grad.cu", "barrier(); /* all stages", "/* all stages"),
    "keeps_the_sums_of_the_first_share": ("conv2d_weight_grad.cu", "first = tile.share * conv", "first = 0 * conv"),
    "leaves_the_sum_of_a_warp": ("conv2d_weight_grad_depthwise.cu", "warp < WARPS;", "warp < WARPS - 1;"),
    "takes_an_input_for_every_gradient": (
        "conv2d_weight_grad_depthwise.cu",
        "c / (conv.out_channels / conv.groups)",
        "c",
    ),
    "adds_sums_too_early": ("conv2d_weight_grad_depthwise.cu", "= sum;\n        barrier();", "= sum;"),
    "keeps_sums_too_early": ("conv2d_weight_grad_depthwise.cu", "barrier(); /* the sums", "/* the sums"),
    "forgets_the_halo_of_a_channels_gradient": (
        "conv2d_weight_grad_depthwise.cu",
        "x >= in.w) return",
        "false) return",
    ),
    "takes_the_last_of_equals": ("pool2d_taps.cu", "v > most[i]", "v >= most[i]"),
    "takes_no_nan": ("pool2d_taps.cu", " && v == v", ""),
    "gives_to_every_tap": ("pool2d_input_grad.cu", "if (best[i] == r * tx.length + s) sum", "sum"),
    "gives_to_the_first_row": ("pool2d_input_grad.cu", "r * tx.length + s)", "s)"),
    "leaves_the_last_window": ("pool2d_input_grad.cu", "from / stride + 1", "from / stride"),
    "gives_between_taps": ("pool2d_input_grad.cu", "rest == 0 && ", ""),
    "leaves_the_last_part": (
        "pool2d_input_grad.cu",
        "ceil_div((i + 1) * out, axis.size)",
        "ceil_div(i * out, axis.size)",
    ),
    "gives_whole_gradients": ("pool2d_input_grad.cu", "fma(g[i], weight, sum[i])", "sum[i] + g[i]"),
    "gives_to_the_near_pixel_alone": ("interpolate_input_grad.cu", "s.far == i ?", "false ?"),
    "looks_for_near_pixels_alone": (
        "interpolate_input_grad.cu",
        "SB_BILINEAR ? s.far : s.near",
        "SB_BILINEAR ? s.near : s.near",
    ),
    "weighs_columns_as_rows": ("interpolate_input_grad.cu", "of_row * along.weight(ox)", "of_row * of_row"),
}


def samples():
    """Whole numbers: weights of more than a tile, in several shares of pixels; windows with ties and dilation."""
    x, wide = (
        torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in ((2, 8, 21, 26), (2, 20, 42, 40))
    )
    broken = x.clone()
    broken[0, 0, 4, 4] = float("nan")
    window = {"kernel_size": (3, 3), "stride": (2, 1), "padding": (1, 1)}
    for case, block in (
        (cases.conv2d(wide, torch.randn(72, 20, 3, 3), torch.randn(72), stride=(1, 2), padding=(1, 1)), (4, 5)),
        (cases.conv2d(x[:, :6], torch.randn(10, 3, 3, 2), groups=2, dilation=(2, 1), padding=(2, 1)), (4, 5)),
        (cases.conv2d(wide, torch.randn(40, 1, 3, 2), groups=20, padding=(1, 1), activation="relu"), (4, 5)),
        (cases.conv_transpose2d(x, torch.randn(8, 6, 3, 4), stride=(2, 3), padding=(1, 2)), (5, 7)),
        (cases.max_pool2d(x, dilation=(1, 2), **window), (4, 5)),
        (cases.adaptive_max_pool2d(x, (6, 7)), (2, 3)),
        (cases.avg_pool2d(x, **window), (4, 5)),
        (cases.adaptive_avg_pool2d(x, (6, 7)), (2, 3)),
        (cases.interpolate(x, (33, 40), mode="nearest"), (4, 5)),
        (cases.interpolate(x, (33, 40), mode="bilinear"), (4, 5)),
    ):
        yield in_blocks(whole(case), block)
    yield in_blocks(cases.max_pool2d(broken.round(), **window), (4, 5))


def check(case):
    # The sums of averages and of blended pixels have at most 64 terms, which are 2 at most.
    exact = case.oracle in (ops.conv2d, ops.conv_transpose2d, ops.max_pool2d, ops.adaptive_max_pool2d)
    allowed = 0.0 if exact else tolerance(64, torch.tensor(2.0))
    check_gradients(case, allowed, torch.Generator().manual_seed(8), name="cuda")


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed((partial(check, case) for case in samples()), emulated_library))


def test_without_a_fault_the_samples_pass(passing):
    check_launched(FAULTS, passing)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path)
