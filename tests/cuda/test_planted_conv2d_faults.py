"""Faults in the CUDA kernels of convolution are caught by the contract; Hopper's are in test_planted_hopper_faults."""

from __future__ import annotations

import pytest
import torch
from planted import check_caught, check_launched, contracts, passed

from sparseblock.testing import cases

# (file, what stands there, what is put there instead)
FAULTS = {
    "forgets_the_halo_above": ("conv2d.cu", "if (y < 0 || y >= in.h", "if (y >= in.h"),
    "forgets_the_halo_on_the_right": ("conv2d.cu", "|| x >= in.w) return nullptr", ") return nullptr"),
    "sums_a_chunk_less": ("conv2d.cu", "chunk < chunks; ++chunk", "chunk < chunks - 1; ++chunk"),
    "waits_for_a_chunk_less": ("conv2d.cu", "wait_copies<STAGES - 2>", "wait_copies<STAGES - 1>"),
    "loads_over_the_chunk_before": ("conv2d.cu", "(chunk + STAGES - 1) % STAGES", "(chunk + 2 * STAGES - 2) % STAGES"),
    "multiplies_before_all_have_loaded": ("conv2d.cu", "barrier(); /* the chunk", "/* the chunk"),
    "keeps_sums_where_others_still_read": ("conv2d.cu", "barrier(); /* all stages", "/* all stages"),
    "forgets_pixels_too_early": ("conv2d.cu", "barrier(); /* the pixels", "/* the pixels"),
    "convolves_the_first_image": ("conv2d.cu", "pixel<SB_T>(in, place.n, 0, 0)", "pixel<SB_T>(in, 0, 0, 0)"),
    "convolves_the_first_group": ("conv2d.cu", "(int64_t)group * (conv", "(int64_t)0 * (conv"),
    "takes_the_first_groups_weights": ("conv2d.cu", "(tile.group * conv.kernel_h", "(0 * conv.kernel_h"),
    "convolves_a_block_more": ("conv2d.cu", "block >= regions.count()", "block > regions.count()"),
    "convolves_whole_blocks": ("conv2d.cu", "y >= region.y1 || ", ""),
    "swaps_matrices": ("conv2d.cu", "piece + lane / 16)", "piece + lane / 8 % 2)"),
    "swaps_columns": ("conv2d.cu", "lane / 16 * 8 + lane % 8", "lane % 16"),
    "multiplies_half_a_chunk": ("conv2d.cu", "piece += 2", "piece += 4"),
    "swaps_rows_of_sums": ("conv2d.cu", "first_row + 16 * i + r / 2 * 8", "first_row + 16 * i + r % 2 * 8"),
    "adds_the_first_channels_residual": ("conv2d.cu", "place.x) + c * residual.stride_c", "place.x)"),
    "leaves_columns": ("conv2d.cu", "pass * PASS < cols", "(pass + 1) * PASS < cols"),
    "stays_at_a_tap": ("conv2d.cu", "if (leaves) take_tap();", ""),
    "walks_down_the_kernel_first": ("conv2d.cu", "x = 0, ++y", "x = 0, y += 2"),
    "steps_back_where_it_is_transposed": ("conv2d.h", "-(step * dilation / stride)", "step * dilation / stride"),
    "takes_the_first_phase": ("conv2d.h", "(phase - from % phases + phases) % phases", "phase"),
    "takes_every_tap": ("conv2d.h", "ceil_div(kernel - first, step)", "ceil_div(kernel - first, 1)"),
    "takes_the_first_channels_weights": (
        "conv2d_depthwise.cu",
        "tap * conv.out_channels + c",
        "tap * conv.out_channels",
    ),
    "takes_an_input_for_every_output": ("conv2d_depthwise.cu", "out_group(c)", "c"),
    "forgets_the_halo_of_a_channel": ("conv2d_depthwise.cu", "|| x >= in.w) continue", ") continue"),
}


def samples():
    """Of many channels and few, whole, in groups, depthwise and transposed."""
    x = torch.randn(2, 8, 21, 26, generator=torch.Generator().manual_seed(0))
    stored = {"dtype": torch.bfloat16, "generator": torch.Generator().manual_seed(5)}
    many, few, kernels_of_8 = (
        torch.randn(shape, **stored) for shape in ((2, 64, 21, 26), (2, 3, 21, 26), (136, 64, 3, 3))
    )
    of_few, one_each, transposed = torch.randn(24, 3, 3, 3), torch.randn(16, 1, 3, 3), torch.randn(8, 6, 3, 4)
    three, groups = {"padding": (1, 1), "activation": "relu"}, torch.randn(64, 32, 3, 3).bfloat16()
    yield from (
        (cases.conv2d(many, kernels_of_8, **three), (4, 5)),
        (cases.conv2d(many, groups, torch.randn(64), many.flip(2), groups=2, **three), (16, 16)),
        (cases.conv2d(few.float(), of_few, residual=torch.randn(2, 24, 11, 13), stride=(2, 2), **three), (4, 5)),
        (cases.conv2d(many.float(), torch.randn(72, 64, 1, 1)), (4, 5)),
        (cases.conv2d(x, one_each, **three, groups=8), (4, 5)),
        (cases.conv_transpose2d(x, transposed, stride=(2, 3), padding=(1, 2), dilation=(1, 2)), (5, 7)),
    )


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(contracts(samples()), emulated_library))


def test_without_a_fault_the_samples_pass(passing):
    check_launched(FAULTS, passing)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path)
