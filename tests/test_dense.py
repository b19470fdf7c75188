"""The small dense functions: the native ones against the reference, which is torch's formula, in float64."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import sparseblock
from sparseblock import SparseBlockError, backends, dense
from sparseblock.testing import assert_matches, channels_last, strategies

SIDES = st.integers(1, 20)


def _strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout."""
    match layout:
        case "channels-last":
            return channels_last(x)
        case "slice":
            wide = channels_last(x.new_zeros(x.shape[0], x.shape[1] + 2, x.shape[2] + 1, x.shape[3] + 2))
            wide[:, 1:-1, :-1, 1:-1] = x
            return wide[:, 1:-1, :-1, 1:-1]
        case "reversed axes":
            return x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return x.contiguous()


LAYOUTS = st.sampled_from(["contiguous", "channels-last", "slice", "reversed axes"])


def _reference(function, *arguments, **options):
    def double(value):
        if isinstance(value, torch.Tensor):
            return value.detach().double().requires_grad_(value.requires_grad)
        return [double(item) for item in value] if isinstance(value, list) else value

    with sparseblock.backend("reference"):
        return function(*map(double, arguments), **options)


@given(st.tuples(st.integers(1, 2), st.integers(1, 4), SIDES, SIDES), st.integers(1, 9), st.integers(0, 2), LAYOUTS)
def test_area_means(shape, window, more, layout):
    x = torch.randn(shape)
    rows, cols = -(-shape[2] // window) + more, -(-shape[3] // window) + more
    means, finite = dense.area_mean(_strided(x, layout), window, rows, cols)
    expected, _ = _reference(dense.area_mean, x, window, rows, cols)
    assert finite
    # A mean of n values of magnitude m is off by at most (n + 1) roundings of m.
    bound = (window**2 + 1) * torch.finfo(torch.float32).eps * x.abs().max().item()
    torch.testing.assert_close(means.double(), expected, rtol=0, atol=bound)


@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), SIDES, SIDES), st.integers(1, 6), st.randoms(use_true_random=False),
    LAYOUTS, st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)  # fmt: skip
def test_a_number_that_is_not_finite_shows_wherever_it_is(shape, window, random, layout, bad):
    x = torch.zeros(shape)
    place = [random.randrange(size) for size in shape]
    x[tuple(place)] = bad
    means, finite = dense.area_mean(_strided(x, layout), window, -(-shape[2] // window), -(-shape[3] // window))
    assert not finite
    wrong = ~means.isfinite()
    assert wrong.sum() == 1 and wrong[place[0], place[1], place[2] // window, place[3] // window]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), LAYOUTS), min_size=1, max_size=4),
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
def test_stack_copies(kinds, n, rows, cols):
    maps = [
        _strided(torch.randn(n, c, rows * 6 // {1: 1, 2: 2, 3: 3}[y], cols * 6 // {1: 1, 2: 2, 3: 3}[x]), layout)
        for c, y, x, layout in kinds
    ]
    stacked = dense.stack(maps, rows * 6, cols * 6)
    assert stacked.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(stacked.double(), _reference(dense.stack, maps, rows * 6, cols * 6))


@st.composite
def chains(draw):
    """x, weights, biases, options of a chain whose kernels fit, and a gradient.

    Whole numbers, so small that every float32 sum is exact: no rounding decides on which side of a ReLU a value lies.
    """
    generator = draw(strategies.generators())

    def whole(*shape):
        return torch.randint(-1, 2, shape, generator=generator).float()

    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    channels, sides = draw(st.integers(1, 12)), [draw(st.integers(4, 16)), draw(st.integers(4, 16))]
    x = channels_last(whole(draw(st.integers(1, 2)), channels, *sides))
    weights, biases = [], []
    for _ in range(draw(st.integers(1, 3))):
        kernel = [draw(st.integers(1, min(4, side + 2 * padding))) for side in sides]
        weights.append(whole(draw(st.integers(1, 12)), channels, *kernel))
        biases.append(whole(len(weights[-1])))
        channels = len(weights[-1])
        sides = [(side + 2 * padding - size) // stride + 1 for side, size in zip(sides, kernel, strict=True)]
    return x, weights, biases, {"stride": stride, "padding": padding}, whole(len(x), channels, *sides)


def _formula(x, weights, biases, stride, padding):
    for weight, bias in zip(weights, biases, strict=True):
        x = F.relu(F.conv2d(x, weight, bias, stride, padding))
    return x


def _check_chain(function, case, x_needs_grad: bool, backend: str = "cpu") -> None:
    x, weights, biases, options, grad = case
    results = []
    for run, dtype in ((function, torch.float32 if backend == "cpu" else torch.float64), (_formula, torch.float64)):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in (*weights, *biases)]
        start = x.to(dtype).requires_grad_(x_needs_grad)
        with sparseblock.backend(backend):
            out = run(start, leaves[: len(weights)], leaves[len(weights) :], **options)
            wanted = [*leaves, start] if x_needs_grad else leaves
            results.append([out, *torch.autograd.grad(out, wanted, grad.to(dtype))])
    for actual, expected in zip(*results, strict=True):
        assert_matches(actual, expected, 0.0)


@given(chains(), st.booleans(), st.sampled_from(["cpu", "reference"]))
def test_a_chain_and_its_gradients_are_the_formulas(case, x_needs_grad, backend):
    _check_chain(dense.conv_relu_chain, case, x_needs_grad, backend)


@pytest.mark.parametrize("plant", ["no ReLU in the backward pass", "another stride in the backward pass"])
def test_planted_faults_are_caught(monkeypatch, plant):
    right = backends.implementation("cpu", "conv_relu_chain_backward")

    def wrong(grad, x, weights, maps, stride, padding, x_needs_grad):
        if plant.startswith("no ReLU"):
            maps = [*maps[:-1], torch.ones_like(maps[-1])]
            return right(grad, x, weights, maps, stride, padding, x_needs_grad)
        return right(grad, x, weights, maps, 1, padding, x_needs_grad)

    monkeypatch.setattr(backends, "implementation", lambda name, op: wrong if op.endswith("backward") else chain)
    chain = importlib.import_module("sparseblock.backends.cpu.conv_relu_chain").conv_relu_chain
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randint(-1, 2, size, generator=generator).float() for size in ((1, 3, 8, 8), (4, 3, 4, 4), (4,))
    )
    case = channels_last(x), [weight], [bias], {"stride": 2, "padding": 1}, torch.ones(1, 4, 4, 4)
    with pytest.raises(AssertionError, match="elements differ"):
        _check_chain(dense.conv_relu_chain, case, False)


def test_gradients_do_not_depend_on_the_number_of_threads():
    x = channels_last(torch.randn(2, 9, 30, 30))
    before, grads = torch.get_num_threads(), []
    weight, bias = torch.randn(20, 9, 3, 3, requires_grad=True), torch.zeros(20, requires_grad=True)
    grad = torch.randn(2, 20, 30, 30)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = dense.conv_relu_chain(x, [weight], [bias], padding=1)
            grads.append(torch.autograd.grad(out, [weight, bias], grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: dense.area_mean(x, 2, 3, 4), "area_mean: x is [1, 3, 8, 8], the window 2 and the result 3x4"),
        (lambda x: dense.area_mean(x.double(), 2, 4, 4), "area_mean: tensors are torch.float64"),
        (lambda x: dense.stack([], 4, 4), "stack: there are no maps"),
        (lambda x: dense.stack([x], 12, 8), "stack: a map is [1, 3, 8, 8] and the result 12x8"),
        (lambda x: dense.conv_relu_chain(x.contiguous(), [], []), "conv_relu_chain: x is [1, 3, 8, 8] with strides"),
        (lambda x: dense.conv_relu_chain(x, [], []), "conv_relu_chain: 0 weights and 0 biases"),
        (
            lambda x: dense.conv_relu_chain(x, [torch.rand(2, 4, 3, 3)], [torch.rand(2)]),
            "conv_relu_chain: layer 0 has weight [2, 4, 3, 3] and bias [2]; they must be [k, 3, r, s] and [k]",
        ),
        (
            lambda x: dense.conv_relu_chain(x, [torch.rand(2, 3, 9, 9)], [torch.rand(2)]),
            "conv_relu_chain: layer 0 has a kernel of 9x9, which does not fit",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(SparseBlockError) as error:
        call(channels_last(torch.rand(1, 3, 8, 8)))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("name", ["area_mean", "stack", "conv_relu_chain"])
def test_the_example_in_the_docstring_runs(name):
    tests = doctest.DocTestFinder().find(getattr(dense, name), name, globs={"torch": torch, "sparseblock": sparseblock})
    assert any(test.examples for test in tests)
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
