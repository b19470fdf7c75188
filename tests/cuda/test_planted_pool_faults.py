"""Faults in the CUDA kernels of pooling, and in what all kernels of maps share, are caught by the contract."""

from __future__ import annotations

import pytest
import torch
from planted import check_caught, check_launched, contracts, passed

from sparseblock.testing import cases

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
    "takes_one_piece_a_block": (
        "maps.h",
        "(int)ceil_div((int64_t)height * width * vectors, PIECE)",
        "height * width * vectors ? 1 : 0",
    ),
}


def samples():
    """Windows, small and large, some with NaN, in small blocks and a large one."""
    x = torch.randn(2, 8, 21, 26, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[0, 0, 4, 4] = float("nan")
    wide = torch.randn(1, 40, 36, 40, generator=torch.Generator().manual_seed(1))
    window = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    yield from (
        (cases.max_pool2d(x, **window), (4, 5)),
        (cases.max_pool2d(broken, **window), (4, 5)),
        (cases.max_pool2d(broken.bfloat16(), **window), (4, 5)),
        (cases.max_pool2d(broken.half(), **window), (4, 5)),
        (cases.max_pool2d(broken, kernel_size=(7, 6), stride=(2, 3), padding=(3, 2)), (4, 5)),
        (cases.avg_pool2d(x, count_include_pad=False, **window), (4, 5)),
        (cases.avg_pool2d(wide, **window), (32, 32)),
        (cases.avg_pool2d(x, kernel_size=(5, 4), stride=(2, 3), padding=(2, 1), count_include_pad=False), (4, 5)),
        (cases.adaptive_avg_pool2d(wide, (2, 1)), (1, 1)),
    )


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(contracts(samples()), emulated_library))


def test_without_a_fault_the_samples_pass(passing):
    check_launched(FAULTS, passing)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path)
