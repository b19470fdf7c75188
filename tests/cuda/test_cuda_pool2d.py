"""Which pools share their windows among the lanes of a warp: it follows from the window alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparseblock import backend
from sparseblock.backends.cpu import native
from sparseblock.backends.cuda import launch, max_pool2d
from sparseblock.testing import Guard, cases, check_contract, on_device


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def launched(cuda_device, monkeypatch):
    """The kernels that were launched."""
    names, real = [], launch.launch
    for place in (launch, max_pool2d):
        monkeypatch.setattr(place, "launch", lambda kernel, **rest: names.append(kernel) or real(kernel, **rest))
    return names


@pytest.mark.parametrize(
    ("kernel", "lanes"), [((2, 2), 1), ((3, 3), 1), ((3, 5), 1), ((4, 4), 2), ((5, 5), 2), ((13, 13), 16), ((64, 1), 8)]
)
def test_a_lane_has_eight_taps_or_more(kernel, lanes):
    pool = native.Pool2d(native.POOL_MAX, *kernel, 1, 1, 0, 0, 1, 1)
    assert max_pool2d.lanes_of_a_window(pool, (64, 64), (1, 1)) == lanes


@pytest.mark.parametrize(("grid", "lanes"), [((8, 16), 2), ((4, 8), 8), ((2, 4), 32), ((1, 2), 32), ((16, 32), 1)])
def test_a_pyramid_over_32x64_pixels_shares_its_windows(grid, lanes):
    pool = native.Pool2d(native.POOL_AVG, adaptive=1)
    assert max_pool2d.lanes_of_a_window(pool, (32, 64), grid) == lanes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [40, 3])
@pytest.mark.parametrize("grid", [(8, 16), (4, 8), (2, 4), (1, 2)])
def test_pools_of_a_pyramid_are_right(grid, channels, dtype, launched, cuda_device):
    """With so few windows that some warps have none, and so many that some have several."""
    x = normal(2, channels, 32, 64).to(dtype)
    with backend("cuda"):
        for op in (cases.adaptive_avg_pool2d, cases.adaptive_max_pool2d):
            case = op(x, grid)
            check_contract(replace(case, call=on_device(case.call, cuda_device)), Guard(channels=0))
    assert {kernel.rpartition("_")[0] for kernel in launched} == {"pool2d_large"}


def test_small_windows_have_a_thread_each(launched, cuda_device):
    case = cases.max_pool2d(normal(1, 8, 9, 9), kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    with backend("cuda"):
        check_contract(replace(case, call=on_device(case.call, cuda_device)))
    assert set(launched) == {"pool2d_f32"}
