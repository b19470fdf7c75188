"""Comparison: one rule for tolerances, and messages that say how many, where first, and both values."""

from __future__ import annotations

import torch

from sparseblock.activations import EPS, FLOOR
from sparseblock.algorithm import ALGORITHMS
from sparseblock.testing import winograd

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def tolerance(terms: int, *factors: torch.Tensor, addends: tuple[torch.Tensor | None, ...] = ()) -> float:
    """How far a float32 sum of `terms` products of `factors`, plus `addends`, may lie from the exact one.

    2 eps (terms + 1) (max|f1| max|f2| ... + max|a1| + ...), eps of float32: each of the additions and products rounds
    once, relative to a sum whose terms are random in sign. Subnormal factors and results may count as zero, which a
    magnitude of `activations.FLOOR` at least allows. What an activation adds says `activations.Bound`.
    """
    product, added = 1.0, FLOOR
    for factor in factors:
        product *= max(float(factor.abs().max()), FLOOR)
    added += sum(float(addend.abs().max()) for addend in addends if addend is not None)
    return 2 * EPS * (terms + 1) * (product + added)


def winograd_tolerance(
    algorithm: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    *factors: torch.Tensor,
    addends: tuple[torch.Tensor | None, ...] = (),
) -> float:
    """How far a 3x3 convolution by `algorithm`, times `factors`, plus `addends`, may lie from the exact one.

    The rule is that of `tolerance`. x is [n, c, h, w], weight [k, c, 3, 3]. The sum has a term for every channel and
    every sum of a transform that a value passes, T = m + 2 long in each of two axes before and after; its products are
    `winograd.amplification` times as large as the factors'.
    """
    m = ALGORITHMS[algorithm]
    terms, amplification = x.shape[1] + 4 * (m + 2) + len(factors), torch.tensor(winograd.amplification(m))
    return tolerance(terms, x, weight, amplification, *factors, addends=addends)


def assert_matches(
    actual: torch.Tensor,
    expected: torch.Tensor,
    tolerance: float,
    where: torch.Tensor | None = None,
    relative: float = 0.0,
) -> None:
    """|actual - expected| <= `tolerance` + `relative` |expected|; NaN only where NaN is expected.

    With both 0 values are compared exactly.

    Where `actual` is bfloat16 or float16, the tolerance is that of the value which was rounded to it once, to nearest
    even: rounding keeps the order, so `actual` lies between expected - tolerance and expected + tolerance, rounded too.

    Args:
        expected: the shape of `actual`; of any float dtype.
        where: bool, broadcast to `actual`: the elements to compare; None for all.

    Raises:
        AssertionError: how many elements differ, the first one's coordinates, and both values.
    """
    _same_shape(actual, expected)
    wide, exact = actual.double(), expected.double()
    allowed = tolerance + relative * exact.abs() if relative else tolerance
    if actual.element_size() == 2:
        near = ((exact - allowed).to(actual.dtype) <= actual) & (actual <= (exact + allowed).to(actual.dtype))
    else:
        near = (wide - exact).abs() <= allowed
    close = (wide == exact) | near | (wide.isnan() & exact.isnan())
    how = f"differ by more than {tolerance:.3g}" + (f" + {relative:.3g} of their value" if relative else "")
    _report(actual, expected, _chosen(~close, where), how)


def assert_identical(actual: torch.Tensor, expected: torch.Tensor, where: torch.Tensor | None = None) -> None:
    """The same bits: zeros of the same sign, NaN with the same payload.

    Args:
        expected: of the shape and dtype of `actual`.
        where: bool, broadcast to `actual`: the elements to compare; None for all.

    Raises:
        AssertionError: how many elements differ, the first one's coordinates, and both values.
    """
    _same_shape(actual, expected)
    assert actual.dtype == expected.dtype, f"dtypes differ: {actual.dtype} and {expected.dtype}"
    bits = _BITS[actual.element_size()]
    differ = actual.contiguous().view(bits) != expected.contiguous().view(bits)
    _report(actual, expected, _chosen(differ, where), "differ in their bits")


def _same_shape(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape, f"shapes differ: {list(actual.shape)} and {list(expected.shape)}"


def _chosen(differ: torch.Tensor, where: torch.Tensor | None) -> torch.Tensor:
    return differ if where is None else differ & where


def _report(actual: torch.Tensor, expected: torch.Tensor, differ: torch.Tensor, how: str) -> None:
    places = differ.nonzero()
    if len(places):
        first = tuple(places[0].tolist())
        raise AssertionError(
            f"{len(places)} of {differ.numel()} elements {how}; first at {list(first)}: "
            f"{actual[first].item()!r} instead of {expected[first].item()!r}"
        )
