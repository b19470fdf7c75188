"""Faults in the CUDA kernels that run on Hopper alone are caught, by what comes out or by threads that wait in vain."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from planted import KERNELS, check_caught, in_blocks, passed

from sparseblock.errors import SparseBlockError
from sparseblock.testing import Guard, cases, check_contract

# (file, what stands there, what is put there instead)
FAULTS = {
    "forgets_a_taps_shift": ("conv2d_wgmma.cu", "a.stage(of_a) + shift", "a.stage(of_a)"),
    "forgets_dilation_along_a_line": ("conv2d_wgmma.cu", "shift += conv.dilation_w * LINE", "shift += LINE"),
    "stays_in_the_first_line_of_taps": ("conv2d_wgmma.cu", "along = 0, shift += to_next_line", "along = 0"),
    "forgets_dilation_of_boxes": ("conv2d_wgmma.cu", "left + kx * conv.dilation_w", "left + kx"),
    "takes_lines_that_follow_each_other": ("conv2d_wgmma.cu", "(units.shared ? units.pitch : 8)", "8"),
    "takes_the_first_line_of_squares": ("conv2d_wgmma.cu", "(y * units.pitch + x) * LINE", "(0 * y + x) * LINE"),
    "takes_the_first_units_boxes": ("conv2d_wgmma.cu", "+ lane * units.unit_bytes", "+ 0 * lane"),
    "forgets_the_padding_above": ("conv2d_wgmma.cu", "unit.y * conv.stride_h - conv.pad_h", "unit.y * conv.stride_h"),
    "forgets_the_padding_on_the_left": (
        "conv2d_wgmma.cu",
        "unit.x * conv.stride_w - conv.pad_w",
        "unit.x * conv.stride_w",
    ),
    "forgets_the_last_tap": ("conv2d_wgmma.cu", "conv.kernel_h * conv.kernel_w", "conv.kernel_h * conv.kernel_w - 1"),
    "forgets_the_last_chunk": (
        "conv2d_wgmma.cu",
        "channel < conv.in_channels",
        "channel == 0 || channel + DEPTH < conv.in_channels",
    ),
    "copies_the_first_chunk": ("conv2d_wgmma.cu", "a.filled(of_a), channel,", "a.filled(of_a), 0,"),
    "copies_the_first_taps_weights": ("conv2d_wgmma.cu", "column + i, tap, 0)", "column + i, 0, 0)"),
    "copies_the_first_columns_weights": ("conv2d_wgmma.cu", "channel, column + i, tap", "channel, i, tap"),
    "copies_half_of_the_columns_twice": ("conv2d_wgmma.cu", "channel, column + i, tap", "channel, column, tap"),
    "copies_the_first_image": ("conv2d_wgmma.cu", "conv.dilation_h, unit.n)", "conv.dilation_h, 0)"),
    "multiplies_half_a_row": ("conv2d_wgmma.cu", "step < STEPS", "step < STEPS / 2"),
    "convolves_a_block_more": ("conv2d_wgmma.cu", "number >= all", "number >= all + (int)in_block.by"),
    "reads_boxes_of_the_round_before": ("conv2d_wgmma.cu", "else wait(a.filled(of_a), of_a.round);", ""),
    "reads_weights_of_the_round_before": ("conv2d_wgmma.cu", "wait(b.filled(of_b), of_b.round);", ""),
    "copies_over_boxes_that_are_read": ("conv2d_wgmma.cu", "wait(a.emptied(of_a), of_a.round ^ 1);", ""),
    "copies_over_weights_that_are_read": ("conv2d_wgmma.cu", "wait(b.emptied(of_b), of_b.round ^ 1);", ""),
    "takes_the_other_parity": ("conv2d_wgmma.cu", "of_b.round ^ 1", "of_b.round"),
    "loses_its_round": ("conv2d_wgmma.cu", "at = 0, round ^= 1", "at = 0"),
    "gives_stages_back_too_early": ("conv2d_wgmma.cu", "wait_products<1>", "wait_products<2>"),
    "gives_a_stage_back_that_is_being_read": (
        "conv2d_wgmma.cu",
        "last_a = a.emptied(of_a);",
        "last_a = a.signals + (MOST_STAGES - 1) * SIGNAL, speaks ? arrive(a.emptied(of_a)) : (void)0;",
    ),
    "gives_stages_back_for_all_warps": (
        "conv2d_wgmma.cu",
        "prepare(signals + MOST_STAGES * SIGNAL, WARPS)",
        "prepare(signals + MOST_STAGES * SIGNAL, 1)",
    ),
    "keeps_the_last_stages": ("conv2d_wgmma.cu", "if (speaks) arrive(last_b), arrive(last_a);", ""),
    "expects_a_box_less": ("conv2d_wgmma.cu", "boxes * units.box_bytes", "(boxes - 1) * units.box_bytes"),
    "takes_sums_before_they_are_there": ("conv2d_wgmma.cu", "wait_products<0>();", ""),
    "swaps_rows_of_sums": ("conv2d_wgmma.cu", "lane / 4 + 8 * r,", "lane / 4 + 8 * (1 - r),"),
    "takes_the_units_of_another_tile": (
        "conv2d_wgmma.cu",
        "(columns(tile) << in_tile_log) + i",
        "(tile << in_tile_log) + i",
    ),
    "swaps_units": ("conv2d_wgmma.cu", "(down << units.height_log)", "(right << units.height_log)"),
    "stores_below_the_block": ("conv2d_wgmma.cu", "y < bottom && ", ""),
    "stores_right_of_the_block": ("conv2d_wgmma.cu", " && x < right", ""),
    "forgets_the_residual": ("conv2d_wgmma.cu", "given.residual, given.combined,", "given.residual, false,"),
    "adds_the_first_channels_bias": (
        "conv2d_wgmma.cu",
        "parameters<V>(epilogue.bias, read",
        "parameters<V>(epilogue.bias, 0",
    ),
    "adds_the_bias_of_another_channel": ("conv2d_wgmma.cu", "v += e.bias[c];", "v += e.bias[0];"),
    "reads_the_residual_of_another_row": ("conv2d_wgmma.cu", "shuffle(other, row)", "shuffle(other, 0)"),
    "gathers_without_the_padding_above": (
        "conv2d_wgmma.cu",
        "out_y * conv.stride_h - conv.pad_h",
        "out_y * conv.stride_h",
    ),
    "gathers_without_the_padding_on_the_left": (
        "conv2d_wgmma.cu",
        "out_x * conv.stride_w - conv.pad_w",
        "out_x * conv.stride_w",
    ),
    "gathers_what_lies_above_the_frame": ("conv2d_wgmma.cu", "(uint32_t)y < (uint32_t)x.h && ", ""),
    "gathers_what_lies_beside_the_frame": ("conv2d_wgmma.cu", " && (uint32_t)from < (uint32_t)x.w", ""),
    "gathers_channels_that_are_not_there": ("conv2d_wgmma.cu", "channels ? 1u << tap : 0", "1u << tap"),
    "gathers_taps_that_follow_each_other": (
        "conv2d_wgmma.cu",
        "ahead += conv.dilation_w * x.stride_x",
        "ahead += x.stride_x",
    ),
    "gathers_the_first_chunk": ("conv2d_wgmma.cu", "* x.stride_y + channel;", "* x.stride_y;"),
    "gathers_the_first_image": ("conv2d_wgmma.cu", "unit.n * x.stride_n + top", "top"),
    "gathers_without_swizzle": ("conv2d_wgmma.cu", "(lane % LANES ^ lane / LANES) * 16", "lane % LANES * 16"),
    "gathers_by_the_first_rows_swizzle": ("conv2d_wgmma.cu", "place ^ i % 2 * APART * 16", "place"),
    "gathers_the_rows_of_the_first_warp": ("conv2d_wgmma.cu", "mine = warp_index() * WARP + lane", "mine = lane"),
    "gathers_what_is_inside_for_another_row": (
        "conv2d_wgmma.cu",
        "shuffle(taps_inside, of)",
        "shuffle(taps_inside, 0)",
    ),
    "gathers_the_first_units_pixels": ("conv2d_wgmma.cu", "tiles.unit(tile, mine >> area_log)", "tiles.unit(tile, 0)"),
    "shows_rows_before_they_come": ("conv2d_wgmma.cu", "arrive_when_copied(a.filled(of_a))", "arrive(a.filled(of_a))"),
    "multiplies_rows_that_products_do_not_see": (
        "conv2d_wgmma.cu",
        "wait_for_copies(a.filled(of_a), of_a.round)",
        "wait(a.filled(of_a), of_a.round)",
    ),
    "waits_for_the_rows_of_one_thread": ("conv2d_wgmma.cu", "units.gathered ? WARPGROUP : 1", "1"),
    "does_not_wait_for_kernels_before": ("conv2d_wgmma.cu", "    await_kernels_before();\n", ""),
    "packs_without_padding": ("conv2d_windows.cu", "from = x - conv.pad_w", "from = x"),
    "packs_without_the_padding_above": ("conv2d_windows.cu", "conv.stride_h - conv.pad_h", "conv.stride_h"),
    "packs_what_lies_before_the_frame": ("conv2d_windows.cu", "from >= 0 && ", ""),
    "packs_what_lies_behind_the_frame": ("conv2d_windows.cu", " && from < in.w", ""),
    "packs_the_next_pixels_channels": ("conv2d_windows.cu", "if (c < in.c) ", ""),
    "packs_the_first_image": ("conv2d_windows.cu", "pixel<SB_T>(in, n, y, from)", "pixel<SB_T>(in, 0, y, from)"),
    "packs_no_halo_below": ("conv2d_windows.cu", "conv.dilation_h * (conv.kernel_h - 1)", "0"),
    "packs_no_halo_on_the_right": ("conv2d_windows.cu", "reach_x = conv.kernel_w - 1", "reach_x = 0"),
}


def checks():
    """On convolutions of large tiles, more than there are groups, and of small ones."""

    def normal(*shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).half()

    relu = {"activation": "relu"}
    for case, block, guard in (
        # With a box for all taps, three chunks of channels, and a residual.
        (
            cases.conv2d(
                *(normal(2, 136, 40, 38), normal(72, 136, 3, 3), normal(72).float(), normal(2, 72, 40, 38)),
                **{"padding": (2, 2), "dilation": (2, 2), **relu},
            ),
            (16, 16),
            Guard(channels=8),
        ),
        # With a box for every tap, two tiles of 64 channels.
        (
            cases.conv2d(
                *(normal(2, 72, 41, 51), normal(72, 72, 3, 3)),
                **{"stride": (2, 2), "padding": (2, 1), "dilation": (1, 2), **relu},
            ),
            (8, 8),
            Guard(channels=0),
        ),
        # Of small units, which are gathered.
        (
            cases.conv2d(
                *(normal(2, 72, 41, 51), normal(72, 72, 3, 3)),
                **{"stride": (2, 2), "padding": (2, 1), "dilation": (1, 2), **relu},
            ),
            (4, 4),
            Guard(channels=8),
        ),
        # Whose outputs are tiles side by side.
        (cases.conv2d(normal(2, 40, 31, 38), normal(136, 40, 1, 1)), (8, 8), Guard(channels=0)),
        # Of few channels, stored one by one, and of several units a block.
        (
            cases.conv2d(normal(2, 3, 61, 75), normal(68, 3, 7, 9), normal(68).float(), stride=(2, 2), padding=(3, 4)),
            (8, 24),
            Guard(),
        ),
    ):
        yield partial(check_contract, in_blocks(case, block), guard)


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(checks(), emulated_library, "sm_90a"))


def test_without_a_fault_the_samples_pass(passing):
    """By these kernels and no others."""
    launched = set().union(*(launched for _, launched in passing))
    assert launched == {kernel for file, *_ in FAULTS.values() for kernel in KERNELS[file]}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    errors = (AssertionError, SparseBlockError)
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path, "sm_90a", errors)
