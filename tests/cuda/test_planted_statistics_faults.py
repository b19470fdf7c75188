"""Faults in the CUDA kernels of moments and norms are caught by the contract."""

from __future__ import annotations

import pytest
import torch
from planted import check_caught, check_launched, contracts, passed

from sparseblock.testing import cases

# (file, what stands there, what is put there instead)
FAULTS = {
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
}


def samples():
    """Of cells, of images and of the channels of a pixel; one map with NaN."""
    x = torch.randn(2, 8, 21, 26, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[0, 0, 4, 4] = float("nan")
    sides = {"size": (21, 26), "cell": (4, 5)}
    cells, deep = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(3)), torch.cat([x] * 5, 1)
    norm = {"num_groups": 2, "cell": (4, 5), "eps": 0.5, "activation": "prelu", "slope": torch.arange(8.0)}
    yield from (
        (cases.block_moments(deep, cell=(4, 5), order=2), (2, 1)),
        *((cases.block_norm(x, x.flip(2), cell=(4, 5), norm=norm), (2, 1)) for norm in ("l1", "l2", "max")),
        (cases.block_norm(broken, cell=(4, 5), norm="max"), (2, 1)),
        (cases.global_avg_pool2d(cells, **sides), (1, 1)),
        (cases.group_norm(x, torch.cat([cells, cells.square()], 1), torch.arange(8.0), torch.ones(8), **norm), (4, 5)),
        (cases.softmax(deep + 100), (4, 5)),
        (cases.normalize(deep, eps=0.5), (4, 5)),
        (cases.layer_norm(deep + 1, torch.arange(40.0), torch.ones(40), eps=0.5), (4, 5)),
    )


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(contracts(samples()), emulated_library))


def test_without_a_fault_the_samples_pass(passing):
    check_launched(FAULTS, passing)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path)
