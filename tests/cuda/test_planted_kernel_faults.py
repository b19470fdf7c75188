"""The contract catches faults that are planted into the sources of the CUDA kernels."""

from __future__ import annotations

import ctypes
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sparseblock import BlockSet, backend, ops
from sparseblock.backends.cuda import launch
from sparseblock.backends.cuda.blocks_from_mask import blocks_from_mask
from sparseblock.backends.cuda.kernels import kernels
from sparseblock.errors import SparseBlockError
from sparseblock.testing import Guard, cases, check_contract, tolerance
from sparseblock.testing.gradients import check_gradients, whole

CUDA = Path(__file__).parents[2] / "csrc" / "cuda"
# What a fault in a file is planted into.
CONV2D = ("conv2d_f32", "conv2d_bf16", "conv2d_narrow_bf16")
KERNELS = {
    "pool2d.cu": ("pool2d_f32", "pool2d_bf16"),
    "pool2d.h": ("pool2d_f32", "pool2d_bf16", "pool2d_large_f32"),
    "pool2d_large.cu": ("pool2d_large_f32",),
    "maps.h": ("pool2d_f32",),
    "shuffle.cu": ("shuffle_f32",),
    "pad.cu": ("pad_f32",),
    "pad.h": ("pad_f32",),
    "pointwise.cu": ("pointwise_f32",),
    "epilogue.h": ("pointwise_f32",),
    "interpolate.cu": ("interpolate_f32",),
    "interpolate.h": ("interpolate_f32",),
    "conv2d_weight_grad.h": ("conv2d_weight_grad", "conv2d_weight_grad_depthwise"),
    "gather.cu": ("gather_f32",),
    "scatter.cu": ("scatter_f32",),
    "block_moments.cu": ("block_moments_f32",),
    "global_avg_pool2d.cu": ("global_avg_pool2d_f32",),
    "group_norm.cu": ("group_norm_f32",),
    "group_norm_statistics.cu": ("group_norm_statistics",),
    "moments.h": ("group_norm_statistics", "channel_moments"),
    "blocks_from_mask.cu": ("blocks_from_mask",),
    "block_norm.cu": ("block_norm_f32",),
    "channel_norm.cu": ("channel_norm_f32",),
    "conv2d.cu": CONV2D,
    "conv2d.h": ("conv2d_narrow_f32",),
    "conv2d_depthwise.cu": ("conv2d_depthwise_f32",),
    "conv2d_wgmma.cu": ("conv2d_wgmma_128x64_f16",),
    "conv2d_windows.cu": ("conv2d_windows_4_f16",),
    "sample.cu": ("sample_f32",),
    "policy_inputs.h": ("policy_inputs", "policy_level"),
    **{
        f"{name}.cu": (name,)
        for name in (
            "area_mean",
            "channel_moments",
            "conv2d_weight_grad",
            "conv2d_weight_grad_depthwise",
            "copy_where",
            "interpolate_input_grad",
            "picture_distance",
            "policy_conv2d",
            "policy_inputs",
            "policy_level",
            "policy_logits",
            "pool2d_input_grad",
            "pool2d_taps",
        )
    },
}
# (file, what stands there, what is put there instead)
FAULTS = {
    "reads_past_the_frame": ("pool2d.h", "steps_over(axis.size - origin)", "length"),
    "reads_before_the_frame": ("pool2d.h", "origin < 0 ? steps_over(-origin) : 0", "0"),
    "loses_nan": ("pool2d.h", " || float_of_bits(v) != float_of_bits(v)", ""),
    "keeps_the_first_of_halves": ("pool2d.h", "larger_bfloat16s(most, v)", "most"),
    "forgets_the_last_tap": ("pool2d.cu", "s + k >= tx.last", "s + k >= tx.last - 1"),
    "divides_by_whole_windows": ("pool2d.h", "pool.count_include_pad && !pool.adaptive", "true"),
    "joins_no_maxima": ("pool2d.h", "shuffle_xor((uint32_t)most.words[i], distance)", "most.words[i]"),
    "forgets_a_lanes_taps": ("pool2d_large.cu", "tap < end; tap +=", "tap < end && share < lanes - 1; tap +="),
    "forgets_the_second_round": ("pool2d_large.cu", "tap += AT_ONCE * lanes", "tap += end"),
    "joins_neighbours": ("pool2d_large.cu", "distance = apart;", "distance = 1;"),
    "joins_half_of_the_lanes": ("pool2d_large.cu", "distance < WARP;", "distance < WARP / 2;"),
    "steps_over_the_window": ("pool2d_large.cu", "if (s >= columns)", "if (s > columns)"),
    "stays_in_its_rows": ("pool2d_large.cu", "step = rows * down + further", "step = further"),
    "takes_the_first_lanes_channels": ("pool2d_large.cu", "+ lane_index() % apart) * N", ") * N"),
    "writes_past_the_channels": ("pool2d_large.cu", "share == 0 && c < out.c", "share == 0"),
    "leaves_large_windows": ("pool2d_large.cu", "i += warps", "i += 2 * warps"),
    "ignores_the_count": ("maps.h", "*blocks.count : out.n", "*blocks.count + 1 : out.n"),
    "leaves_the_last_block": ("maps.h", "*blocks.count : out.n", "*blocks.count - 1 : out.n"),
    "takes_the_first_image": ("maps.h", "n = early ? load_latest(index) : index[0];", "n = 0;"),
    "writes_whole_blocks": ("maps.h", "y < y1 && ", ""),
    "leaves_channels": ("maps.h", "vectors = channels / N", "vectors = (channels - 1) / N"),
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
    "leaves_a_warp": ("moments.h", "warp < WARPS;", "warp < WARPS - 1;"),
    "leaves_lanes": ("moments.h", "mask = WARP / 2", "mask = 1"),
    "counts_whole_cells": ("moments.h", "minimum(block, size - i * block)", "block"),
    "reads_sums_too_early": ("moments.h", "sums[thread_index()] = sum;\n    barrier();", "sums[thread_index()] = sum;"),
    "writes_sums_too_early": ("moments.h", "barrier(); /* what", "/* what"),
    "forgets_to_square": ("block_moments.cu", "return d * d;", "return d;"),
    "leaves_the_last_channels": ("block_moments.cu", "ceil_div(in.c, WARP)", "maximum(in.c / WARP, 1)"),
    "takes_square_cells": ("block_moments.cu", "x * moments.block_w)", "x * moments.block_h)"),
    "weighs_cells_alike": ("global_avg_pool2d.cu", "cell_pixels(moments, y, x) * ", ""),
    "averages_the_first_image": ("global_avg_pool2d.cu", "pixel<float>(cells, region.n,", "pixel<float>(cells, 0,"),
    "forgets_epsilon": ("group_norm_statistics.cu", "variance + norm.eps", "variance"),
    "forgets_how_means_differ": ("group_norm_statistics.cu", "deviations[c] + d * d * pixels", "deviations[c]"),
    "takes_the_first_group": ("group_norm_statistics.cu", "i % norm.groups * width", "0 * i"),
    "forgets_the_mean": ("group_norm_statistics.cu", " - mean * scale[c])", ")"),
    "takes_the_first_images_scale": ("group_norm.cu", "(int64_t)2 * n * out.c", "(int64_t)0 * n * out.c"),
    "takes_the_first_channels_slopes": ("group_norm.cu", "epilogue, c)", "epilogue, 0)"),
    "lists_no_rest": (
        "blocks_from_mask.cu",
        "run = ceil_div(all, thread_count())",
        "run = maximum(all / thread_count(), 1)",
    ),
    "counts_its_own_blocks_twice": ("blocks_from_mask.cu", "place = upto - active", "place = upto"),
    "scans_half_a_warp": ("blocks_from_mask.cu", "delta < WARP;", "delta < WARP / 2;"),
    "forgets_the_warps_before": ("blocks_from_mask.cu", "place += warps[warp]", "place += 0"),
    "lists_columns_first": ("blocks_from_mask.cu", "(i / cols % rows)", "(i % rows)"),
    "adds_what_differs_with_its_sign": ("block_norm.cu", "d < 0.0 ? -d : d", "d"),
    "forgets_the_root": ("block_norm.cu", "SB_NORM_L2 ? sqrt(total) : total", "SB_NORM_L2 ? total : total"),
    "forgets_the_other_map": ("block_norm.cu", "differ ? ", "false ? "),
    "adds_where_it_takes_the_largest": ("block_norm.cu", "norm.norm == SB_NORM_MAX", "false"),
    "loses_nan_in_a_norm": ("block_norm.cu", " || b != b", ""),
    "takes_no_maximum": ("channel_norm.cu", "const float most = largest(from, out.c);", "const float most = 0.0f;"),
    "leaves_a_channel_of_norms": (
        "channel_norm.cu",
        "channels; c += WARP)\n        to[c]",
        "channels - 1; c += WARP)\n        to[c]",
    ),
    "adds_epsilon_to_the_length": ("channel_norm.cu", "(length < norm.eps ? norm.eps : length)", "(length + norm.eps)"),
    "forgets_the_mean_of_channels": ("channel_norm.cu", "return (v - mean) * factor;", "return v * factor;"),
    "forgets_epsilon_over_channels": ("channel_norm.cu", "squares / out.c + norm.eps", "squares / out.c"),
    "leaves_warps": ("channel_norm.cu", "i += group_count() * WARPS", "i += group_count() * WARPS * 2"),
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
    "takes_one_piece_a_block": (
        "maps.h",
        "(int)ceil_div((int64_t)height * width * vectors, PIECE)",
        "height * width * vectors ? 1 : 0",
    ),
}
# The same of what runs on Hopper alone.
HOPPER_FAULTS = {
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


def blurred(*, x, blocks, out, **_):
    """avg_pool2d of 3x3 pixels, by dense code on packed blocks."""
    capacity, (height, width) = len(blocks.index), blocks.block
    layout = {"dtype": x.dtype, "device": x.device, "memory_format": torch.channels_last}
    packed = torch.empty(capacity, x.shape[1], height + 2, width + 2, **layout)
    means = F.avg_pool2d(ops.gather(x, blocks, packed, halo=1), 3, 1)
    return ops.scatter(means.contiguous(memory_format=torch.channels_last), blocks, out)


def samples():
    """Maps in blocks, some of them active, the last ones partial; one with NaN, one in large blocks."""
    x = torch.randn(2, 8, 21, 26, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[0, 0, 4, 4] = float("nan")
    wide = torch.randn(1, 40, 36, 40, generator=torch.Generator().manual_seed(1))
    window = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    sides = {"size": (21, 26), "cell": (4, 5)}
    cells, deep = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(3)), torch.cat([x] * 5, 1)
    norm = {"num_groups": 2, "cell": (4, 5), "eps": 0.5, "activation": "prelu", "slope": torch.arange(8.0)}
    stored = {"dtype": torch.bfloat16, "generator": torch.Generator().manual_seed(5)}
    many, few, kernels_of_8 = (
        torch.randn(shape, **stored) for shape in ((2, 64, 21, 26), (2, 3, 21, 26), (136, 64, 3, 3))
    )
    of_few, one_each, transposed = torch.randn(24, 3, 3, 3), torch.randn(16, 1, 3, 3), torch.randn(8, 6, 3, 4)
    three, groups = {"padding": (1, 1), "activation": "relu"}, torch.randn(64, 32, 3, 3).bfloat16()
    for case, block in (
        (cases.conv2d(many, kernels_of_8, **three), (4, 5)),
        (cases.conv2d(many, groups, torch.randn(64), many.flip(2), groups=2, **three), (16, 16)),
        (cases.conv2d(few.float(), of_few, residual=torch.randn(2, 24, 11, 13), stride=(2, 2), **three), (4, 5)),
        (cases.conv2d(many.float(), torch.randn(72, 64, 1, 1)), (4, 5)),
        (cases.conv2d(x, one_each, **three, groups=8), (4, 5)),
        (cases.conv_transpose2d(x, transposed, stride=(2, 3), padding=(1, 2), dilation=(1, 2)), (5, 7)),
        (cases.max_pool2d(x, **window), (4, 5)),
        (cases.max_pool2d(broken, **window), (4, 5)),
        (cases.max_pool2d(broken.bfloat16(), **window), (4, 5)),
        (cases.max_pool2d(broken.half(), **window), (4, 5)),
        (cases.avg_pool2d(x, count_include_pad=False, **window), (4, 5)),
        (cases.avg_pool2d(wide, **window), (32, 32)),
        (cases.max_pool2d(broken, kernel_size=(7, 6), stride=(2, 3), padding=(3, 2)), (4, 5)),
        (cases.avg_pool2d(x, kernel_size=(5, 4), stride=(2, 3), padding=(2, 1), count_include_pad=False), (4, 5)),
        (cases.adaptive_avg_pool2d(wide, (2, 1)), (1, 1)),
        (cases.activation(broken, activation="relu"), (4, 5)),
        (cases.add(x, x.flip(2), activation="hardswish"), (4, 5)),
        (cases.mul(x, x.flip(2)), (4, 5)),
        (cases.affine(x, torch.arange(1.0, 9.0), torch.arange(8.0)), (4, 5)),
        (cases.pixel_shuffle(x, upscale_factor=2), (4, 5)),
        (cases.pixel_unshuffle(x[:, :, :20].clone(), downscale_factor=2), (4, 5)),
        (cases.channel_shuffle(x, groups=4), (4, 5)),
        (cases.pad(x, padding=((1, 2), (3, 4)), value=1.5), (4, 5)),
        (cases.interpolate(x, size=(33, 40), mode="nearest"), (4, 5)),
        (cases.interpolate(x, size=(33, 40), mode="bilinear"), (4, 5)),
        (replace(cases.avg_pool2d(x, **window), call=blurred), (4, 5)),
        (cases.block_moments(deep, cell=(4, 5), order=2), (2, 1)),
        *((cases.block_norm(x, x.flip(2), cell=(4, 5), norm=norm), (2, 1)) for norm in ("l1", "l2", "max")),
        (cases.block_norm(broken, cell=(4, 5), norm="max"), (2, 1)),
        (cases.global_avg_pool2d(cells, **sides), (1, 1)),
        (cases.group_norm(x, torch.cat([cells, cells.square()], 1), torch.arange(8.0), torch.ones(8), **norm), (4, 5)),
        (cases.pad(x, padding=((1, 2), (3, 4)), mode="reflect"), (4, 5)),
        (cases.softmax(deep + 100), (4, 5)),
        (cases.normalize(deep, eps=0.5), (4, 5)),
        (cases.layer_norm(deep + 1, torch.arange(40.0), torch.ones(40), eps=0.5), (4, 5)),
    ):
        yield in_blocks(case, block)


def in_blocks(case, block):
    """With half of its blocks, the first and the last among them."""
    n, _, height, width = case.out_shape
    grid = (n, -(-height // block[0]), -(-width // block[1]))
    mask = torch.rand(grid, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[-1, -1, -1] = mask[0, 0, 0] = True
    index = BlockSet.from_mask(mask, block).index
    spare = torch.nonzero(~mask)[:1].int()  # behind the count, as in a list with room for every block
    return replace(case, blocks=replace(BlockSet.from_mask(mask, block), index=torch.cat([index, spare]).contiguous()))


def gradients():
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


def check_of_gradients(case):
    # The sums of averages and of blended pixels have at most 64 terms, which are 2 at most.
    exact = case.oracle in (ops.conv2d, ops.conv_transpose2d, ops.max_pool2d, ops.adaptive_max_pool2d)
    allowed = 0.0 if exact else tolerance(64, torch.tensor(2.0))
    check_gradients(case, allowed, torch.Generator().manual_seed(8), name="cuda")


def checks():
    """One of each sample, of blocks in masks, and of gradients: last, as samples alone lie between guards, which take
    what a fault writes beyond a map.
    """
    for case in samples():
        yield partial(check_contract, case)
        if case.oracle is ops.conv2d:
            yield partial(check_contract, case, Guard(channels=0))  # where 16 bytes of channels lie together
    for shape in ((2, 3, 5), (3, 41, 29)):
        yield partial(check_blocks_from_mask, torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.5)
    for case in gradients():
        yield partial(check_of_gradients, case)


def check_blocks_from_mask(mask):
    index, count = blocks_from_mask(mask)
    assert index[: int(count)].tolist() == mask.nonzero().tolist()


def checks_of_hopper():
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


# Compiled once for every fault, kernels run for less time than they compile.
FLAGS = ["-std=c++17", "-O0", "-fPIC", "-ffp-contract=off", "-DSB_EMULATED"]


class Library:
    """Where `launch` looks kernels up: the faultless ones, of the file `path`. It keeps which were."""

    def __init__(self, path):
        self.path, self.faultless, self.launched = path, ctypes.CDLL(path), set()

    def __getattr__(self, name):
        self.launched.add(name)
        kernel = getattr(self.of(name), name)
        kernel.restype, kernel.argtypes = ctypes.c_char_p, [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        return kernel

    def of(self, name):
        return self.faultless


class FaultyLibrary(Library):
    """With a fault in the sources of some kernels. They are compiled into `folder` when they are launched: few
    are, until it is caught. The faultless library's machine runs them: its threads' stacks stay until the process
    ends.
    """

    def __init__(self, path, folder, file, there, instead):
        super().__init__(path)
        self.folder, self.faulty = folder, dict.fromkeys(KERNELS[file])
        for path in (*CUDA.glob("*.cu"), *CUDA.glob("*.h")):
            text = path.read_text()
            if path.name == file:
                assert there in text, f"{file} has no {there!r} any more"
                text = text.replace(there, instead)
            (folder / path.name).write_text(text)
        (folder / "emulated").symlink_to(CUDA / "emulated")

    def of(self, name):
        if name not in self.faulty:
            return self.faultless
        if not self.faulty[name]:
            self.faulty[name] = ctypes.CDLL(self.compiled(kernels()[name]))
        return self.faulty[name]

    def compiled(self, kernel):
        macros = {"SB_NAME": kernel.name, **kernel.macros}
        text = "".join(f"#define {macro} {value}\n" for macro, value in macros.items())
        source, made = self.folder / f"{kernel.name}.cpp", self.folder / f"{kernel.name}.so"
        source.write_text(f'{text}#include "{kernel.source}"\n')
        include = [f"-I{self.folder}", f"-I{CUDA.parent / 'include'}"]
        subprocess.run(["g++", *FLAGS, *include, "-shared", source, self.path, "-o", made], check=True)
        return made


@contextmanager
def launching(library, arch):
    """Makes the cuda backend run the kernels of a library, for an architecture."""
    with pytest.MonkeyPatch.context() as patch, backend("cuda"):
        patch.setenv("SPARSEBLOCK_CUDA_EMULATED", str(library.path))
        patch.setenv("SPARSEBLOCK_CUDA_EMULATED_ARCH", arch)
        patch.setattr(launch, "_emulation", lambda: library)
        yield


def passed(checks, path, arch):
    """Each check, which passes without a fault, and the kernels that it launches."""
    for check in checks:
        library = Library(path)
        with launching(library, arch):
            check()
        yield check, library.launched


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(checks(), emulated_library, "sm_80"))


@pytest.fixture(scope="module")
def passing_on_hopper(emulated_library):
    return list(passed(checks_of_hopper(), emulated_library, "sm_90a"))


def run_what_launches(kernels, passing):
    """Other checks could not catch a fault in these kernels."""
    for check, launched in passing:
        if launched & kernels:
            check()


def test_without_a_fault_the_samples_pass(passing):
    """By a kernel of every file that faults are planted into."""
    launched = set().union(*(launched for _, launched in passing))
    assert [file for file, *_ in FAULTS.values() if launched.isdisjoint(KERNELS[file])] == []


def test_without_a_fault_the_samples_of_hopper_pass(passing_on_hopper):
    launched = set().union(*(launched for _, launched in passing_on_hopper))
    assert launched == {kernel for file, *_ in HOPPER_FAULTS.values() for kernel in KERNELS[file]}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    library = FaultyLibrary(emulated_library, tmp_path, *FAULTS[fault])
    with launching(library, "sm_80"), pytest.raises(AssertionError):
        run_what_launches(library.faulty.keys(), passing)


@pytest.mark.parametrize("fault", HOPPER_FAULTS)
def test_a_fault_on_hopper_is_caught(fault, passing_on_hopper, emulated_library, tmp_path):
    """By what comes out, or by threads that wait in vain."""
    library = FaultyLibrary(emulated_library, tmp_path, *HOPPER_FAULTS[fault])
    with launching(library, "sm_90a"), pytest.raises((AssertionError, SparseBlockError)):
        run_what_launches(library.faulty.keys(), passing_on_hopper)
