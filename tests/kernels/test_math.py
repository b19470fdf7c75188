"""Activations over the whole line against float64: the errors that sparseblock/activations.py states."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sparseblock import BlockSet, activations, backend, ops
from sparseblock.ops import _check
from sparseblock.testing import assert_identical, assert_matches, channels_last

SMOOTH = [name for name in _check.ACTIVATIONS if name not in (None, "relu", "relu6", "clamp", "leaky_relu", "prelu")]


def sweep() -> torch.Tensor:
    """Every magnitude, 2^-149 to the largest, of both signs; the interesting range finely; infinities and NaN."""
    generator = torch.Generator().manual_seed(0)
    magnitudes = torch.logspace(-44.85, 38.53, 20001, dtype=torch.float64)
    fine = torch.rand(40001, generator=generator, dtype=torch.float64) * 220 - 110
    finest = torch.randn(40001, generator=generator, dtype=torch.float64) * 3
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 88.72, 89.5, -103.9, -104.1, -3.0, 3.0])
    return torch.cat([magnitudes, -magnitudes, fine, finest, special.double()]).float()


def apply(name: str, values: torch.Tensor, channels: int = 1) -> torch.Tensor:
    """`values` [k] through the op, laid out as pixels of `channels` channels."""
    rest = -len(values) % channels
    x = F.pad(values, (0, rest)).view(1, -1, 1, channels).permute(0, 3, 1, 2)
    blocks = BlockSet.all(1, 1, 1, tuple(x.shape[2:]))
    out = channels_last(torch.empty_like(x))
    return ops.activation(x, blocks, out, activation=name).permute(0, 2, 3, 1).flatten()[: len(values)]


def check(name: str, values: torch.Tensor, result: torch.Tensor) -> None:
    with backend("reference"):
        exact = apply(name, values.double())
    of = activations.bound(name)
    assert_matches(result, exact, activations.EPS * of.absolute + activations.TINY, None, activations.EPS * of.relative)


@pytest.mark.parametrize("name", SMOOTH)
def test_sweep(isa, name):
    values = sweep()
    check(name, values, apply(name, values))


@pytest.mark.parametrize("name", SMOOTH)
def test_a_value_does_not_depend_on_its_lane(isa, name):
    values = torch.randn(64, generator=torch.Generator().manual_seed(1)) * 4
    expected = apply(name, values)
    for channels in (1, 3, 16, 17, 64):
        for shift in (0, 1, 5):
            shifted = apply(name, torch.cat([torch.zeros(shift), values]), channels)
            assert_identical(shifted[shift:], expected)


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_are_no_larger_than_stated(name):
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    with backend("reference"):
        y = apply(name, x)
    steepest = float((y.diff() / x.diff()).abs().max())
    assert steepest <= activations.bound(name).lipschitz <= 1.001 * steepest


FAULTS = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": lambda x: F.hardsigmoid(x),
    "silu": lambda x: x.bfloat16().float() * torch.sigmoid(x),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),  # overflows, and cancels near 0
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),  # cancels near 0
    "softplus": lambda x: torch.log(1 + torch.exp(x)),  # the same
    "mish": lambda x: x.nan_to_num(0.0) * torch.tanh(F.softplus(x)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_sweep_catches(name):
    values = sweep()
    with pytest.raises(AssertionError):
        check(name, values, FAULTS[name](values))
