"""conv2d by dot products of bfloat16 pairs: the contract, the rounding of weights, refusals, and planted faults."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import nn

import sparseblock
from sparseblock import BlockSet, SparseBlockError, ops
from sparseblock.backends.cpu import native
from sparseblock.testing import (
    assert_identical,
    cases,
    channels_last,
    check_contract,
    check_in_place,
    check_independence,
    strategies,
)

on_such_a_processor = pytest.mark.usefixtures("avx512_bf16")


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def blocks(case, *block: int, density: float = 0.5):
    """`case` on a random half of its blocks."""
    n, _, h, w = case.out_shape
    mask = torch.rand(n, -(-h // block[0]), -(-w // block[1]), generator=torch.Generator().manual_seed(1)) < density
    return replace(case, blocks=BlockSet.from_mask(mask, block))


def _has_whole_residual(case) -> bool:
    return "residual" in case.maps and tuple(case.maps["residual"].shape) == case.out_shape


@on_such_a_processor
@given(strategies.bf16_pairs_conv2d(), strategies.guards())
def test_active_blocks_are_dense_and_the_rest_keeps_its_bits(case, guard):
    check_contract(case, guard)


@on_such_a_processor
@given(strategies.bf16_pairs_conv2d())
def test_a_block_depends_on_nothing_but_its_input(case):
    check_independence(case)


@on_such_a_processor
@given(strategies.bf16_pairs_conv2d().filter(_has_whole_residual))
def test_in_place(case):
    check_in_place(case, "residual")


EDGES = {
    "sums longer than a panel of weights": ((1, 4202, 4, 5), (17, 4202, 3, 3), 1, 1, (2, 2)),
    "several chunks, ragged": ((1, 64, 61, 67), (48, 64, 3, 3), 1, 1, (16, 24)),
    "few pixels, many units": ((1, 64, 8, 8), (320, 64, 1, 1), 1, 1, (4, 4)),
    "a window of segments": ((1, 32, 40, 40), (64, 32, 3, 3), 1, 12, (8, 8)),
    "stride 2": ((2, 48, 41, 37), (33, 48, 3, 3), 2, 1, (5, 6)),
}


@on_such_a_processor
@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_the_kernel(edge):
    shape, weight, stride, dilation, block = EDGES[edge]
    pad = dilation * (weight[2] // 2)
    geometry = {"padding": (pad, pad), "stride": (stride, stride), "dilation": (dilation, dilation)}
    case = cases.conv2d(normal(*shape), normal(*weight), normal(weight[0]), **geometry, algorithm="bf16_pairs")
    check_contract(blocks(case, *block))
    check_independence(blocks(case, *block))


@on_such_a_processor
def test_weights_are_rounded_to_nearest_even():
    x, weight = normal(1, 6, 9, 8), torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[0, 0, 0] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20])  # two ties, and just above one
    outs = [channels_last(torch.zeros(1, 5, 7, 6, dtype=torch.bfloat16)) for _ in range(2)]
    everything = BlockSet.all(1, 1, 1, 8)
    for out, weights in zip(outs, (weight, weight.bfloat16().float()), strict=True):
        ops.conv2d(channels_last(x), weights, None, everything, out, algorithm="bf16_pairs")
    assert_identical(*outs)


def _sample():
    return blocks(
        cases.conv2d(normal(2, 24, 19, 21), normal(16, 24, 3, 3), padding=(1, 1), algorithm="bf16_pairs"), 6, 7
    )


FAULTS = {
    "the second of a pair is left out": lambda x, w: (x * (torch.arange(24) % 2 == 0)[:, None, None], w),
    "the channels of a pair are swapped": lambda x, w: (x.unflatten(1, (12, 2)).flip(2).flatten(1, 2), w),
    "a weight of a hundred is cut instead of rounded": lambda x, w: (x, w - (w == w.flatten()[7]) * w.abs() * 2**-7),
    "the halo is dropped": lambda x, w: (torch.cat([x[..., :-1], x[..., -1:] * 0], 3), w),
}


@on_such_a_processor
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault):
    def call(x, weight, **rest):
        wrong, weights = FAULTS[fault](x, weight)
        return ops.conv2d(channels_last(wrong.to(x.dtype)), weights.to(weight.dtype), **rest)

    check_contract(_sample())
    with pytest.raises(AssertionError):
        check_contract(replace(_sample(), call=call))


@pytest.mark.parametrize(
    ("c", "dtype", "message"),
    [
        (6, torch.float32, "algorithm is 'bf16_pairs', but its maps are float32; it needs bfloat16 maps and an even"),
        (5, torch.bfloat16, "algorithm is 'bf16_pairs', but its groups have 5 input channels; it needs bfloat16 maps"),
    ],
)
def test_what_it_cannot_compute_is_refused(c, dtype, message):
    x, out = (channels_last(torch.zeros(1, k, 8, 8, dtype=dtype)) for k in (c, 4))
    with pytest.raises(SparseBlockError, match=message):
        ops.conv2d(x, torch.zeros(4, c, 1, 1), None, BlockSet.all(1, 1, 1, 8), out, algorithm="bf16_pairs")


def test_a_processor_without_it_says_so():
    before = native.lib().sb_isa()
    x, out = (channels_last(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16)) for _ in range(2))
    native.lib().sb_set_isa(b"avx2" if before.startswith(b"avx") else before)
    try:
        with pytest.raises(SparseBlockError, match="lacks AVX512-BF16; use 'direct'"):
            ops.conv2d(x, torch.zeros(4, 4, 1, 1), None, BlockSet.all(1, 1, 1, 8), out, algorithm="bf16_pairs")
    finally:
        native.lib().sb_set_isa(before)


@on_such_a_processor
def test_a_plan_in_bfloat16_measures_it_and_float32_does_not():
    model = nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.Conv2d(64, 32, 1)).eval()
    frame = torch.rand(1, 3, 128, 128)
    for dtype, there in ((torch.bfloat16, True), (torch.float32, False)):
        plan = sparseblock.compile(model, frame, block_size=32, dtype=dtype)
        stem, *rest = (node.choice for node in plan.report().nodes if node.choice)
        for choice in rest:
            seconds = {candidate.algorithm: candidate.seconds for candidate in choice.candidates}
            assert (seconds["bf16_pairs"] is not None) == there
        reasons = {candidate.algorithm: candidate.reason for candidate in stem.candidates}
        assert reasons["bf16_pairs"] == ("its groups have 3 input channels" if there else "its maps are float32")


@on_such_a_processor
def test_a_plan_of_pairs_is_the_networks_with_rounded_weights():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 64, 3, 2, 1), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 6, 3, 1, 2, 2)
    ).eval()
    frames = torch.rand(2, 1, 8, 64, 64)
    plan = sparseblock.compile(model, frames[0], block_size=32, dtype=torch.bfloat16, algorithms="bf16_pairs")
    assert {node.kernel for node in plan.report().nodes[1:]} == {"cpu avx512 bf16_pairs"}
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.bfloat16().float()
    rounded = sparseblock.compile(model, frames[0], block_size=32, dtype=torch.bfloat16, algorithms="bf16_pairs")
    direct = sparseblock.compile(model, frames[0], block_size=32, dtype=torch.bfloat16, algorithms="direct")
    outs = [p(frames[0], None, p.new_state()).float() for p in (plan, rounded, direct)]
    assert torch.equal(outs[0], outs[1])
    # Both sum in float32; where they round a map to different neighbours, that is one step of bfloat16 further on.
    assert (outs[0] - outs[2]).abs().max() <= 4 * 2**-8 * outs[2].abs().max()
