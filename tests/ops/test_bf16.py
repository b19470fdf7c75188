"""conv2d by products of bfloat16, in pairs and in tiles: contract, rounded weights, refusals, and planted faults."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
from sparseblock.testing.poison import Guard

ALGORITHMS = {"bf16_pairs": "AVX512-BF16", "bf16_amx": "AMX-BF16"}
every_algorithm = pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=pytest.mark.algorithm(name)) for name in ALGORITHMS]
)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def blocks(case, *block: int, density: float = 0.5):
    """`case` on a random half of its blocks."""
    n, _, h, w = case.out_shape
    mask = torch.rand(n, -(-h // block[0]), -(-w // block[1]), generator=torch.Generator().manual_seed(1)) < density
    return replace(case, blocks=BlockSet.from_mask(mask, block))


def _has_whole_residual(case) -> bool:
    return "residual" in case.maps and tuple(case.maps["residual"].shape) == case.out_shape


@every_algorithm
@given(st.data(), strategies.guards())
def test_active_blocks_are_dense_and_the_rest_keeps_its_bits(algorithm, data, guard):
    check_contract(data.draw(strategies.bf16_conv2d(algorithm)), guard)


@every_algorithm
@given(st.data())
def test_a_block_depends_on_nothing_but_its_input(algorithm, data):
    check_independence(data.draw(strategies.bf16_conv2d(algorithm)))


@every_algorithm
@given(st.data())
def test_in_place(algorithm, data):
    check_in_place(data.draw(strategies.bf16_conv2d(algorithm).filter(_has_whole_residual)), "residual")


EDGES = {
    "sums longer than a panel of weights": ((1, 4202, 4, 5), (17, 4202, 3, 3), 1, 1, (2, 2)),
    "several chunks, ragged": ((1, 64, 61, 67), (48, 64, 3, 3), 1, 1, (16, 24)),
    "few pixels, many units": ((1, 64, 8, 8), (320, 64, 1, 1), 1, 1, (4, 4)),
    "a window of segments": ((1, 32, 40, 40), (64, 32, 3, 3), 1, 12, (8, 8)),
    "stride 2": ((2, 48, 41, 37), (33, 48, 3, 3), 2, 1, (5, 6)),
    "rows of whole tiles": ((1, 64, 20, 96), (40, 64, 3, 3), 1, 1, (8, 32)),
    "dilated taps of whole tiles": ((1, 32, 24, 48), (16, 32, 3, 3), 1, 8, (8, 16)),
    "narrow blocks": ((1, 64, 19, 22), (33, 64, 3, 3), 1, 1, (8, 8)),
    "narrow blocks, stride 2": ((2, 32, 33, 30), (24, 32, 3, 3), 2, 1, (4, 4)),
    "narrow blocks, dilated": ((1, 32, 25, 27), (16, 32, 5, 5), 1, 2, (4, 8)),
    "weights larger than a cache": ((1, 512, 12, 14), (128, 512, 3, 3), 1, 1, (4, 4)),
}


@every_algorithm
@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_the_kernel(algorithm, edge):
    shape, weight, stride, dilation, block = EDGES[edge]
    pad = dilation * (weight[2] // 2)
    geometry = {"padding": (pad, pad), "stride": (stride, stride), "dilation": (dilation, dilation)}
    case = blocks(
        cases.conv2d(normal(*shape), normal(*weight), normal(weight[0]), **geometry, algorithm=algorithm), *block
    )
    check_contract(case)
    check_contract(case, Guard(0, 0))  # without gaps tiles are loaded in place
    check_independence(case)


@every_algorithm
@pytest.mark.parametrize("density", [0.5, 1.0])
@pytest.mark.parametrize(("channels", "side"), [(16, 2), (8, 4), (48, 2)])
def test_taps_that_make_whole_tiles_together(algorithm, channels, side, density):
    """Patches: a kernel row's taps follow each other, and pixels lie whole lines of the cache apart."""
    x, weight = normal(1, channels, 16, 64), normal(32, channels, side, side)
    case = cases.conv2d(x, weight, stride=(side, side), algorithm=algorithm)
    check_contract(blocks(case, 4, 16, density=density), Guard(0, 0))


@every_algorithm
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("channels", [16, 64])
def test_whole_units_and_a_residual(algorithm, channels, activation):
    maps = normal(1, 32, 19, 21), normal(channels, 32, 3, 3), normal(channels), normal(1, channels, 19, 21)
    case = cases.conv2d(*maps, padding=(1, 1), activation=activation, algorithm=algorithm)
    check_contract(blocks(case, 6, 7))


@every_algorithm
def test_weights_are_rounded_to_nearest_even(algorithm):
    x, weight = normal(1, 6, 9, 8), torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[0, 0, 0] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20])  # two ties, and just above one
    outs = [channels_last(torch.zeros(1, 5, 7, 6, dtype=torch.bfloat16)) for _ in range(2)]
    everything = BlockSet.all(1, 1, 1, 8)
    for out, weights in zip(outs, (weight, weight.bfloat16().float()), strict=True):
        ops.conv2d(channels_last(x), weights, None, everything, out, algorithm=algorithm)
    assert_identical(*outs)


@every_algorithm
@pytest.mark.parametrize("channels", [32, 3, 1])
def test_bits_do_not_depend_on_where_the_input_lies(algorithm, channels):
    if algorithm == "bf16_pairs":
        channels *= 2
    x, weight = normal(1, channels, 10, 40), normal(24, channels, 3, 3)
    wide = channels_last(torch.zeros(1, channels + 5, 10, 40, dtype=torch.bfloat16))
    wide[:, 3:-2] = x
    outs = [channels_last(torch.zeros(1, 24, 8, 38, dtype=torch.bfloat16)) for _ in range(2)]
    for out, lying in zip(outs, (channels_last(x), wide[:, 3:-2]), strict=True):
        ops.conv2d(lying, weight, None, BlockSet.all(1, 1, 3, 16), out, algorithm=algorithm)
    assert_identical(*outs)


@every_algorithm
def test_nothing_is_left_from_calls_before(algorithm):
    """Whose copies had more channels, and NaN in them."""
    outs = []
    for channels, value in ((6, 1.0), (40, float("nan")), (6, 1.0)):
        outs.append(channels_last(torch.zeros(1, 24, 9, 8, dtype=torch.bfloat16)))
        x, weight = channels_last(normal(1, channels, 11, 10) * value), normal(24, channels, 3, 3)
        ops.conv2d(x, weight, None, BlockSet.all(1, 1, 1, 16), outs[-1], algorithm=algorithm)
    assert bool(outs[1].isnan().all()) and not bool(outs[0].isnan().any())
    assert_identical(outs[0], outs[2])


def _sample(algorithm):
    return blocks(cases.conv2d(normal(2, 24, 19, 21), normal(16, 24, 3, 3), padding=(1, 1), algorithm=algorithm), 6, 7)


FAULTS = {
    "the second of a pair is left out": lambda x, w: (x * (torch.arange(24) % 2 == 0)[:, None, None], w),
    "the channels of a pair are swapped": lambda x, w: (x.unflatten(1, (12, 2)).flip(2).flatten(1, 2), w),
    "a weight of a hundred is cut instead of rounded": lambda x, w: (x, w - (w == w.flatten()[7]) * w.abs() * 2**-7),
    "the halo is dropped": lambda x, w: (torch.cat([x[..., :-1], x[..., -1:] * 0], 3), w),
}


@every_algorithm
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(algorithm, fault):
    def call(x, weight, **rest):
        wrong, weights = FAULTS[fault](x, weight)
        return ops.conv2d(channels_last(wrong.to(x.dtype)), weights.to(weight.dtype), **rest)

    check_contract(_sample(algorithm))
    with pytest.raises(AssertionError):
        check_contract(replace(_sample(algorithm), call=call))


@pytest.mark.parametrize(
    ("algorithm", "c", "groups", "dtype", "message"),
    [
        ("bf16_pairs", 6, 1, torch.float32, "its maps are float32; it needs bfloat16 maps and an even number of input"),
        ("bf16_pairs", 5, 1, torch.bfloat16, "its groups have 5 input channels; it needs bfloat16 maps and an even"),
        (
            "bf16_amx",
            6,
            1,
            torch.float32,
            "its maps are float32; it needs bfloat16 maps and more than one input channel",
        ),
        (
            "bf16_amx",
            4,
            4,
            torch.bfloat16,
            "its groups have 1 input channels; it needs bfloat16 maps and more than one",
        ),
    ],
)
def test_what_it_cannot_compute_is_refused(algorithm, c, groups, dtype, message):
    x, out = (channels_last(torch.zeros(1, k, 8, 8, dtype=dtype)) for k in (c, 4))
    weight, everything = torch.zeros(4, c // groups, 1, 1), BlockSet.all(1, 1, 1, 8)
    with pytest.raises(SparseBlockError, match=f"algorithm is '{algorithm}', but {message}"):
        ops.conv2d(x, weight, None, everything, out, groups=groups, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_processor_without_it_says_so(algorithm):
    before = native.lib().sb_isa()
    x, out = (channels_last(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16)) for _ in range(2))
    native.lib().sb_set_isa(b"avx2" if before.startswith(b"avx") else before)
    try:
        with pytest.raises(
            SparseBlockError, match=f"'{algorithm}', but .* lacks {ALGORITHMS[algorithm]}; use 'direct'"
        ):
            ops.conv2d(x, torch.zeros(4, 4, 1, 1), None, BlockSet.all(1, 1, 1, 8), out, algorithm=algorithm)
    finally:
        native.lib().sb_set_isa(before)


@every_algorithm
def test_a_plan_in_bfloat16_measures_it_and_float32_does_not(algorithm):
    model = nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.Conv2d(64, 32, 1)).eval()
    frame = torch.rand(1, 3, 128, 128)
    for dtype, there in ((torch.bfloat16, True), (torch.float32, False)):
        plan = sparseblock.compile(model, frame, block_size=32, dtype=dtype)
        stem, *rest = (node.choice for node in plan.report().nodes if node.choice)
        for choice in rest:
            seconds = {candidate.algorithm: candidate.seconds for candidate in choice.candidates}
            assert (seconds[algorithm] is not None) == there
        reasons = {candidate.algorithm: candidate.reason for candidate in stem.candidates}
        if not there:
            assert reasons[algorithm] == "its maps are float32"
        elif algorithm == "bf16_pairs":
            assert reasons[algorithm] == "its groups have 3 input channels"


class _Summed(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x) + x))


@every_algorithm
def test_a_plan_is_the_networks_with_rounded_weights(algorithm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 64, 3, 2, 1), _Summed(64), nn.Conv2d(64, 6, 3, 1, 2, 2)).eval()
    frames = torch.rand(2, 1, 8, 64, 64)
    plan = sparseblock.compile(model, frames[0], block_size=32, dtype=torch.bfloat16, algorithms=algorithm)
    assert {node.kernel for node in plan.report().nodes[1:]} == {f"cpu avx512 {algorithm}"}
    assert [node.op for node in plan.report().nodes[1:]] == ["conv2d", "conv2d+add+affine+relu", "conv2d"]
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.bfloat16().float()
    rounded = sparseblock.compile(model, frames[0], block_size=32, dtype=torch.bfloat16, algorithms=algorithm)
    direct = sparseblock.compile(model, frames[0], block_size=32, dtype=torch.bfloat16, algorithms="direct")
    outs = [p(frames[0], None, p.new_state()).float() for p in (plan, rounded, direct)]
    assert torch.equal(outs[0], outs[1])
    # Both sum in float32; where they round a map to different neighbours, that is one step of bfloat16 further on.
    assert (outs[0] - outs[2]).abs().max() <= 4 * 2**-8 * outs[2].abs().max()
