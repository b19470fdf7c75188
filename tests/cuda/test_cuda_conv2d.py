"""conv2d on the cuda backend where its kernels have edges: tiles, chunks, groups, few channels, weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from sparseblock import BlockSet, SparseBlockError, backend, ops
from sparseblock.testing import (
    Guard,
    assert_identical,
    cases,
    channels_last,
    check_contract,
    check_independence,
    strategies,
)
from sparseblock.testing.device import on_device


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def half_active(case, block):
    n, _, h, w = case.out_shape
    grid = n, -(-h // block[0]), -(-w // block[1])
    mask = torch.rand(grid, generator=torch.Generator().manual_seed(1)) < 0.5
    return replace(case, blocks=BlockSet.from_mask(mask, block))


@pytest.fixture
def on_cuda(cuda_device):
    """Makes a case run on the cuda backend."""
    with backend("cuda"):
        yield lambda case: replace(case, call=on_device(case.call, cuda_device))


# Shape of x, of the weight, of a block, and the rest.
EDGES = {
    "more pixels, channels and terms than a tile": ((2, 72, 17, 19), (136, 72, 3, 3), (8, 8), {"padding": (1, 1)}),
    "a tile of many small blocks": ((2, 32, 24, 24), (40, 32, 1, 1), (2, 2), {}),
    "three channels": ((1, 3, 21, 23), (48, 3, 7, 7), (5, 6), {"padding": (3, 3), "stride": (2, 2)}),
    "groups as wide as a vector": ((1, 32, 13, 11), (32, 8, 3, 3), (5, 4), {"padding": (1, 1), "groups": 4}),
    "groups narrower than a vector": ((1, 18, 13, 11), (12, 3, 3, 3), (5, 4), {"padding": (1, 1), "groups": 6}),
    "depthwise": ((2, 24, 13, 11), (24, 1, 5, 5), (5, 4), {"padding": (2, 2), "groups": 24}),
    "depthwise, three outputs each": ((2, 8, 13, 11), (24, 1, 3, 3), (5, 4), {"padding": (1, 1), "groups": 8}),
    "mirrored": ((1, 16, 13, 11), (40, 16, 3, 3), (5, 4), {"padding": (2, 2), "padding_mode": "reflect"}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge, dtype, on_cuda):
    shape, weight, block, rest = EDGES[edge]
    # At no multiple of 16 bytes: a part of a larger memory, as parameters of flattened networks are.
    weights = strategies.anywhere(normal(*weight, dtype=dtype), 1)
    plain = cases.conv2d(normal(*shape, dtype=dtype), weights, normal(weight[0]), **rest)
    residual = {"residual": normal(*plain.out_shape, dtype=dtype), "activation": "relu"}
    fused = cases.conv2d(plain.maps["x"], plain.keywords["weight"], **residual, **rest)
    for case in (plain, fused):
        case = on_cuda(half_active(case, block))
        check_contract(case, Guard(channels=0))
        check_contract(case)
    check_independence(case)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (4, 4)])
def test_edges_of_transposed(stride, on_cuda):
    """With phases that no tap reaches."""
    x, weight = normal(2, 16, 7, 6, dtype=torch.bfloat16), normal(16, 40, 3, 2, dtype=torch.bfloat16)
    rest = {"stride": stride, "padding": (1, 0), "output_padding": tuple(min(s - 1, 1) for s in stride)}
    case = on_cuda(half_active(cases.conv_transpose2d(x, weight, normal(40), **rest), (5, 4)))
    check_contract(case, Guard(channels=0))
    check_independence(case)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.tf32_conv2d(), strategies.guards())
def test_tf32_of_its_own_numbers_is_exact_but_for_the_sum(on_cuda, case, guard):
    check_contract(on_cuda(case), guard)
    check_independence(on_cuda(case))


def test_tf32_rounds_both_factors(on_cuda):
    """To the nearest, also where tensor cores would cut off."""
    x, weight = normal(1, 40, 9, 8), normal(48, 40, 3, 3)
    outs = []
    for factors in ((x, weight), (strategies.to_tf32(x), strategies.to_tf32(weight))):
        case = on_cuda(cases.conv2d(*factors, algorithm="tf32"))
        outs.append(
            case.run({"x": channels_last(case.maps["x"])}, case.blocks, channels_last(torch.zeros(case.out_shape)))
        )
    assert_identical(*outs)
    assert not torch.equal(x, strategies.to_tf32(x))


def test_weights_are_rounded_to_what_maps_store(cuda_device):
    x, weight = (
        channels_last(normal(1, 6, 9, 8, dtype=torch.float16).to(cuda_device)),
        normal(5, 6, 3, 3).to(cuda_device),
    )
    outs = [channels_last(torch.zeros(1, 5, 7, 6, dtype=torch.float16, device=cuda_device)) for _ in range(2)]
    everything = BlockSet.all(1, 1, 1, 8, device=cuda_device)
    with backend("cuda"):
        for out, given in zip(outs, (weight, weight.half().float()), strict=True):
            ops.conv2d(x, given, None, everything, out)
    assert_identical(*(out.cpu() for out in outs))
    assert outs[0].abs().max() > 0


def test_a_weight_changed_in_place_is_packed_anew(cuda_device):
    x, weight = channels_last(normal(1, 4, 8, 8).to(cuda_device)), normal(8, 4, 1, 1).to(cuda_device)
    out, everything = torch.zeros(1, 8, 8, 8, device=cuda_device), BlockSet.all(1, 1, 1, 8, device=cuda_device)
    out = channels_last(out)
    with backend("cuda"):
        before = ops.conv2d(x, weight, None, everything, out).clone()
        weight.mul_(2)
        assert_identical(ops.conv2d(x, weight, None, everything, out).cpu(), (2 * before).cpu())


def test_an_algorithm_of_the_cpu_is_refused(cuda_device):
    x = channels_last(torch.zeros(1, 4, 8, 8, device=cuda_device))
    everything = BlockSet.all(1, 1, 1, 8, device=cuda_device)
    with (
        backend("cuda"),
        pytest.raises(SparseBlockError, match="'winograd_2x2', but the cuda backend has direct, tf32"),
    ):
        weight = torch.zeros(4, 4, 3, 3, device=cuda_device)
        ops.conv2d(x, weight, None, everything, torch.zeros_like(x), padding=1, algorithm="winograd_2x2")
