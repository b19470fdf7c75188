"""softmax, normalize and layer_norm over channels: faults that must show, NaN, halves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sparseblock import BlockSet, ops
from sparseblock.testing import assert_identical, assert_matches, cases, channels_last, check_contract

BLOCKS = BlockSet.all(2, 3, 3, (4, 5))
NORMS = {
    "softmax": lambda x, out: ops.softmax(x, BLOCKS, out),
    "normalize": lambda x, out: ops.normalize(x, BLOCKS, out),
    "layer_norm": lambda x, out: ops.layer_norm(x, None, None, BLOCKS, out),
}
DENSE = {
    "softmax": lambda x: torch.softmax(x, 1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "layer_norm": lambda x: F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1),
}


def normal(c: int = 20) -> torch.Tensor:
    return channels_last(torch.randn(2, c, 11, 13, generator=torch.Generator().manual_seed(c)))


def written(dense: torch.Tensor, blocks: BlockSet, out: torch.Tensor) -> torch.Tensor:
    return ops.activation(channels_last(dense), blocks, out)


def takes_no_maximum(x, blocks, out):
    powers = x.exp()
    return written(powers / powers.sum(1, keepdim=True), blocks, out)


def sums_over_the_frame(x, blocks, out):
    return written(torch.softmax(x.flatten(2), 2).view_as(x), blocks, out)


def leaves_the_last_channel(x, blocks, out):
    return written(torch.cat([torch.softmax(x[:, :-1], 1), torch.zeros_like(x[:, :1])], 1), blocks, out)


def adds_eps(x, blocks, out, eps):
    return written(x / (x.norm(dim=1, keepdim=True) + eps), blocks, out)


def sums_magnitudes(x, blocks, out, eps):
    return written(F.normalize(x, 1.0, 1, eps), blocks, out)


def divides_by_one_less(x, weight, bias, blocks, out, eps):
    deviation = (x.var(1, keepdim=True) + eps).sqrt()
    dense = (x - x.mean(1, keepdim=True)) / deviation * weight[:, None, None] + bias[:, None, None]
    return written(dense, blocks, out)


def adds_eps_to_the_deviation(x, weight, bias, blocks, out, eps):
    deviation = x.var(1, unbiased=False, keepdim=True).sqrt() + eps
    dense = (x - x.mean(1, keepdim=True)) / deviation * weight[:, None, None] + bias[:, None, None]
    return written(dense, blocks, out)


def squares_before_the_mean(x, weight, bias, blocks, out, eps):
    """E[x^2] - E[x]^2 in single precision, where the mean is large."""
    mean = x.mean(1, keepdim=True)
    deviation = ((x * x).mean(1, keepdim=True) - mean * mean + eps).sqrt()
    return written((x - mean) / deviation * weight[:, None, None] + bias[:, None, None], blocks, out)


def normalizes_the_map(x, weight, bias, blocks, out, eps):
    return written(F.group_norm(x, 1, weight, bias, eps), blocks, out)


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (cases.softmax(normal() + 100), takes_no_maximum),
        (cases.softmax(normal()), sums_over_the_frame),
        (cases.softmax(normal()), leaves_the_last_channel),
        (cases.normalize(normal(), eps=0.1), adds_eps),
        (cases.normalize(normal()), sums_magnitudes),
        (cases.layer_norm(normal(), normal(20)[0, :, 0, 0], normal(20)[0, :, 0, 1]), divides_by_one_less),
        (cases.layer_norm(normal(), torch.ones(20), torch.ones(20), eps=1e-3), adds_eps_to_the_deviation),
        (cases.layer_norm(normal() + 100, torch.ones(20), torch.ones(20)), squares_before_the_mean),
        (cases.layer_norm(normal(), torch.ones(20), torch.ones(20)), normalizes_the_map),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_faults_are_noticed(case, fault):
    case = replace(case, blocks=BLOCKS)
    check_contract(case)
    with pytest.raises(AssertionError):
        check_contract(replace(case, call=fault))


@pytest.mark.parametrize("op", NORMS)
@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("c", [3, 40])
def test_nan_and_infinity_spread_as_in_torch(op, special, c):
    x = normal(c)
    for place in ((0, 0, 0, 0), (0, c - 1, 3, 4), (1, c // 2, 5, 7)):
        x[place] = special
    x[1, :, 10, 12] = special
    out = NORMS[op](x, torch.zeros_like(x))
    expected = DENSE[op](x.double())
    assert torch.equal(out.isnan(), expected.isnan())
    assert_matches(out, expected, 1e-6)


@pytest.mark.parametrize("op", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_those_of_their_values_rounded(op, dtype):
    x = normal(37).to(dtype)
    out, wide = (NORMS[op](maps, torch.zeros_like(maps)) for maps in (x, x.float()))
    assert_identical(out, wide.to(dtype))


def test_a_pixel_of_zeros_is_divided_by_eps():
    x = torch.zeros(2, 20, 11, 13).to(memory_format=torch.channels_last)
    assert torch.equal(ops.normalize(x, BLOCKS, torch.ones_like(x)), x)
    assert ops.normalize(x, BLOCKS, torch.ones_like(x), eps=0.0).isnan().all()
