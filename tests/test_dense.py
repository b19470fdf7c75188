"""The small dense functions: the native ones against the reference, which is torch's formula, in float64."""

from __future__ import annotations

import doctest
import importlib
import math

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


@pytest.fixture(params=["cpu", "cuda", "triton"])
def device(request):
    """Where the backend of the test computes."""
    with sparseblock.backend(request.param):
        yield torch.device("cpu") if request.param == "cpu" else request.getfixturevalue(f"{request.param}_device")


def test_area_means(device):
    @given(st.tuples(st.integers(1, 2), st.integers(1, 4), SIDES, SIDES), st.integers(1, 9), st.integers(0, 2), LAYOUTS)
    def check(shape, window, more, layout):
        x = torch.randn(shape)
        rows, cols = -(-shape[2] // window) + more, -(-shape[3] // window) + more
        means, finite = dense.area_mean(_strided(x.to(device), layout), window, rows, cols)
        expected, _ = _reference(dense.area_mean, x, window, rows, cols)
        assert finite
        # A mean of n values of magnitude m is off by at most (n + 1) roundings of m.
        bound = (window**2 + 1) * torch.finfo(torch.float32).eps * x.abs().max().item()
        torch.testing.assert_close(means.cpu().double(), expected, rtol=0, atol=bound)

    check()


def test_a_number_that_is_not_finite_shows_wherever_it_is(device):
    @given(
        st.tuples(st.integers(1, 2), st.integers(1, 3), SIDES, SIDES), st.integers(1, 6),
        st.randoms(use_true_random=False), LAYOUTS, st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    )  # fmt: skip
    def check(shape, window, random, layout, bad):
        x = torch.zeros(shape, device=device)
        place = [random.randrange(size) for size in shape]
        x[tuple(place)] = bad
        means, finite = dense.area_mean(_strided(x, layout), window, -(-shape[2] // window), -(-shape[3] // window))
        assert not finite
        wrong = ~means.isfinite()
        assert wrong.sum() == 1 and wrong[place[0], place[1], place[2] // window, place[3] // window]

    check()


EPS = torch.finfo(torch.float32).eps


def test_channel_moments(device):
    @given(st.integers(1, 4), SIDES, SIDES)
    def check(c, h, w):
        x = torch.randn(1, c, h, w)
        moments = dense.channel_moments(x.to(device))
        expected = _reference(dense.channel_moments, x)
        for actual, value in zip(moments, expected, strict=True):  # sums are taken in double: the result is rounded
            assert list(map(float, actual)) == pytest.approx(value.tolist(), rel=EPS, abs=EPS**2)

    check()


def test_picture_distance(device):
    @given(st.integers(1, 4), SIDES, SIDES, st.sampled_from([0.5, 2.0]), st.floats(-2, 2))
    def check(c, h, w, most, exposure):
        a, b = torch.randn(2, 1, c, h, w)
        b = b + exposure
        distance = float(dense.picture_distance(a.to(device), b.to(device), most))
        expected = float(_reference(dense.picture_distance, a, b, most))
        # A pixel's |a - b|^2 is a sum over the channels of squares of rounded differences, in units of their mean.
        assert distance == pytest.approx(expected, rel=0, abs=(c + 8) * EPS * (1 + abs(exposure)) * 8 * h * w * c)
        assert dense.picture_distance(a.to(device), a.to(device), most) == 0

    check()


def test_samples_are_copies(device):
    @given(st.integers(1, 20), SIDES, SIDES, st.randoms(use_true_random=False), LAYOUTS)
    def check(c, h, w, random, layout):
        x = torch.randn(1, c, h, w)
        ys, xs = (
            torch.tensor([random.randrange(size) for _ in range(random.randrange(1, 30))], device=device)
            for size in (h, w)
        )
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            samples = dense.sample(_strided(x.to(device, dtype), layout), ys, xs)
            assert torch.equal(samples.cpu(), x.to(dtype).float()[:, :, ys.cpu()][..., xs.cpu()])
            assert samples.dtype == torch.float32

    check()


DTYPES = [torch.float32, torch.float64, torch.bool, torch.int64, torch.float16]


@st.composite
def pairs(draw):
    """(into, new): tensors of any dtype, size and layout without gaps, some of them not at a multiple of 16 bytes."""
    into, new = [], []
    for _ in range(draw(st.integers(0, 30))):
        size, dtype = draw(st.lists(st.integers(1, 9), max_size=4)), draw(st.sampled_from(DTYPES))
        skipped = draw(st.integers(0, 3))

        def filled(size=size, dtype=dtype, skipped=skipped):
            return torch.randint(0, 2, (skipped + math.prod(size),)).to(dtype)[skipped:].view(size)

        layout = torch.channels_last if len(size) == 4 and skipped == 0 else torch.contiguous_format
        into.append(filled().contiguous(memory_format=layout))
        new.append(filled().contiguous(memory_format=layout))
    return into, new


def test_copies_where_a_condition_holds(device):
    @given(pairs(), st.booleans())
    def check(case, holds):
        into, new = ([x.to(device) for x in tensors] for tensors in case)
        expected = [x.clone() for x in (new if holds else into)]
        condition = holds if backends.selected(device) == "cpu" else torch.tensor(holds, device=device)
        dense.copy_where(condition, into, new)
        assert all(map(torch.equal, into, expected))

    check()


@st.composite
def inputs(draw):
    """Arguments of policy_inputs."""
    rows, cols, samples, side = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)), 8
    samples = 1 << draw(st.integers(0, 3))
    generator = draw(strategies.generators())

    def normal(c, size):
        return torch.randn(1, c, rows * size, cols * size, generator=generator)

    c, k, logarithms = draw(st.integers(1, 4)), draw(st.integers(2, 20)), draw(st.booleans())
    features = normal(k, samples)
    features = _strided(features.log_softmax(1) if logarithms else features, draw(LAYOUTS))
    active = torch.rand(rows, cols, generator=generator) < 0.5
    age = torch.randint(0, 100, (rows, cols), generator=generator)
    level = draw(st.sampled_from([math.nan, 0.5]))
    scale = {"mean": [0.25] * c, "deviation": [0.5, 2.0, 1.0, 4.0][:c]}
    options = {"level": level, "momentum": draw(st.sampled_from([0.9, 1.0])), "logarithms": logarithms, **scale}
    return normal(c, side), normal(c, side), features, active, age, options


def _check_inputs(case, device: torch.device) -> None:
    *tensors, active, age, options = case
    given = (x.to(device) for x in (*tensors, active, age))
    pixels, summary, level = dense.policy_inputs(*given, **options)
    expected = _reference(dense.policy_inputs, *tensors, **options, active=active, age=age)
    # A logarithm or exponential of a sum over the channels, the classes and a block, at the most: each term is rounded,
    # log(x + 0.1) / 2 has a slope of at most 5 and an entropy one of at most 1 for each of its terms.
    terms = tensors[0].shape[1] + tensors[2].shape[1] + 64 + 16
    for actual, value in zip((pixels, summary), expected, strict=False):
        torch.testing.assert_close(
            actual.cpu().double(), value, rtol=0, atol=terms * EPS * (1 + value.abs().max().item())
        )
    assert abs(level - float(expected[2])) <= terms * EPS * float(expected[2])


def test_policy_inputs(device):
    @given(inputs())
    def check(case):
        _check_inputs(case, device)

    check()


@pytest.mark.parametrize("number", [5, 6, 9])  # active, age, logarithms
def test_a_fault_in_what_the_policy_reads_is_caught(monkeypatch, number):
    right = backends.implementation("cpu", "policy_inputs")

    def wrong(*given):
        other = {5: lambda x: ~x, 6: lambda x: x + 1, 9: lambda x: not x}[number](given[number])
        return right(*given[:number], other, *given[number + 1 :])

    def implementation(name, op):
        return wrong if name == "cpu" else importlib.import_module(f"sparseblock.backends.{name}.{op}").policy_inputs

    monkeypatch.setattr(backends, "implementation", implementation)
    features = torch.randn(1, 5, 4, 6).log_softmax(1)
    frames = torch.randn(2, 1, 3, 16, 24)
    scale = {"mean": [0.0] * 3, "deviation": [1.0] * 3}
    options = {"level": math.nan, "momentum": 0.9, "logarithms": True, **scale}
    with pytest.raises(AssertionError):
        _check_inputs((*frames, features, torch.rand(2, 3) < 0.5, torch.randint(0, 9, (2, 3)), options), CPU)


CPU = torch.device("cpu")
WIDE = 2.0**30  # a bound so far away that the hyperbolic tangent's slope is 1


@st.composite
def policies(draw, bound: float = WIDE):
    """(parameters, pixels, summary, widths, bound) and a gradient.

    Whole numbers, so small that every float32 sum is exact: no rounding decides on which side of a ReLU a value lies.
    """
    generator = draw(strategies.generators())

    def whole(*shape):
        return torch.randint(-1, 2, shape, generator=generator).float()

    rows, cols, c, summaries = (draw(st.integers(1, 4)) for _ in range(4))
    widths = [draw(st.integers(1, 9)) for _ in range(3)]
    size = sum(k * (c_in * 16 + 1) for k, c_in in zip(widths, [c, *widths], strict=False)) + widths[2] + summaries + 1
    arguments = whole(size), whole(rows * 8, cols * 8, c), whole(summaries, rows, cols), widths, bound
    return arguments, whole(rows, cols)


def _policy_formula(parameters, pixels, summary, widths, bound):
    x, used = pixels.permute(2, 0, 1)[None], 0

    def take(*shape):
        nonlocal used
        used += torch.Size(shape).numel()
        return parameters[used - torch.Size(shape).numel() : used].view(shape)

    for k in widths:
        weight = take(k, x.shape[1], 4, 4)
        x = F.relu(F.conv2d(x, weight, take(k), 2, 1))
    maps = torch.cat([x[0], summary])
    return bound * torch.tanh((F.conv2d(maps[None], take(1, len(maps), 1, 1), take(1))[0, 0]) / bound)


def _check_policy(case, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> None:
    (parameters, pixels, summary, widths, bound), grad = case
    leaf = parameters.double().requires_grad_()
    expected = _policy_formula(leaf, pixels.double(), summary.double(), widths, bound)
    *given, of_logits = (x.to(device, dtype) for x in (parameters, pixels, summary, grad))
    logits, maps = dense.policy_logits(*given, widths, bound)
    gradient = dense.policy_logits_backward(of_logits, *given, logits, maps, widths, bound).cpu()
    torch.testing.assert_close(logits.cpu().double(), expected.detach(), rtol=2 * EPS, atol=0)  # of the tangent alone
    exact = torch.autograd.grad(expected, leaf, grad.double())[0]
    assert_matches(gradient.round().float(), exact.round().float(), 0.0)  # whole, but for a slope in float64


def test_policy_logits_and_gradients_are_the_formulas(device):
    @given(policies())
    def check(case):
        _check_policy(case, device=device)

    check()


@given(policies())
def test_the_references_policy_logits_and_gradients_are_the_formulas(case):
    with sparseblock.backend("reference"):
        _check_policy(case, torch.float64)


def _sizes():
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randint(
        -1, 2, (2 * (3 * 16 + 1) + 2 * (2 * 16 + 1) + 2 * (2 * 16 + 1) + 5,), generator=generator
    )
    maps = torch.randint(-1, 2, (16, 16, 3), generator=generator), torch.ones(2, 2, 2)
    return (parameters.float(), maps[0].float(), maps[1], [2, 2, 2], WIDE), torch.ones(2, 2)


@pytest.mark.parametrize("plant", ["no ReLU in the backward pass", "the gradient of another summary"])
def test_planted_faults_are_caught(monkeypatch, plant):
    right = {op: backends.implementation("cpu", op) for op in ("policy_logits", "policy_logits_backward")}

    def wrong(grad, parameters, pixels, summary, logits, maps, widths, bound):
        if plant.startswith("no ReLU"):
            maps = maps.abs() + 1
        else:
            summary = summary.flip(0) + 1
        return right["policy_logits_backward"](grad, parameters, pixels, summary, logits, maps, widths, bound)

    _check_policy(_sizes())
    table = {**right, "policy_logits_backward": wrong}
    monkeypatch.setattr(backends, "implementation", lambda name, op: table[op])
    with pytest.raises(AssertionError, match="elements differ"):
        _check_policy(_sizes())


def test_logits_are_bounded_and_so_is_their_gradient():
    (parameters, pixels, summary, widths, _), grad = _sizes()
    leaf = parameters.double().requires_grad_()
    expected = _policy_formula(leaf, pixels.double(), summary.double(), widths, 2.0)
    logits, maps = dense.policy_logits(parameters, pixels, summary, widths, 2.0)
    gradient = dense.policy_logits_backward(grad, parameters, pixels, summary, logits, maps, widths, 2.0)
    # A tangent within 2 eps, its square, a product and a sum of whole numbers times that over the pixels.
    torch.testing.assert_close(logits, expected.detach().float(), rtol=4 * EPS, atol=0)
    exact = torch.autograd.grad(expected, leaf, grad.double())[0].float()
    torch.testing.assert_close(gradient, exact, rtol=0, atol=(8 + 256) * EPS * max(1.0, exact.abs().max().item()))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: dense.area_mean(x, 2, 3, 4), "area_mean: x is [1, 3, 8, 8], the window 2 and the result 3x4"),
        (lambda x: dense.area_mean(x.double(), 2, 4, 4), "area_mean: tensors are torch.float64"),
        (lambda x: dense.channel_moments(x[0]), "channel_moments: given is [3, 8, 8]; it takes pictures [1, c, h, w]"),
        (lambda x: dense.picture_distance(x, x[:, :2], 2), "picture_distance: given is [1, 3, 8, 8] and [1, 2, 8, 8]"),
        (
            lambda x: dense.sample(x, torch.tensor([1]), torch.tensor([1.0])),
            "sample: x is [1, 3, 8, 8], ys torch.int64",
        ),
        (
            lambda x: dense.copy_where(True, [x, x], [x, x[:, :, 1:]]),
            "copy_where: torch.float32 [1, 3, 7, 8] with strides (192, 1, 24, 3) on cpu cannot go into",
        ),
        (
            lambda x: dense.copy_where(True, [x[..., ::2]], [x[..., ::2]]),
            "copy_where: torch.float32 [1, 3, 8, 4] with strides (192, 1, 24, 6) on cpu cannot go into",
        ),
        (
            lambda x: dense.policy_inputs(
                x,
                x,
                x[:, :, :3],
                torch.ones(1, 1, dtype=torch.bool),
                torch.zeros(1, 1, dtype=torch.int64),
                mean=[0.0] * 3,
                deviation=[1.0] * 3,
                level=math.nan,
                momentum=0.9,
                logarithms=False,
            ),
            "policy_inputs: frame is [1, 3, 8, 8], executed [1, 3, 8, 8], features [1, 3, 3, 8], active",
        ),
        (
            lambda x: dense.policy_logits(torch.rand(9), x[0], torch.rand(2, 1, 1), [1, 1, 1], 2.0),
            "policy_logits: parameters are [9], pixels [3, 8, 8], summary [2, 1, 1] and widths [1, 1, 1]; pixels must",
        ),
        (
            lambda x: dense.policy_logits_backward(
                torch.rand(2, 1),
                torch.rand(87),
                x[0].permute(1, 2, 0),
                torch.rand(2, 1, 1),
                torch.rand(1, 1),
                torch.rand(1),
                [1, 1, 1],
                2.0,
            ),
            "policy_logits_backward: grad is torch.float32 [2, 1] and logits are [1, 1]; both must be",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(SparseBlockError) as error:
        call(channels_last(torch.rand(1, 3, 8, 8)))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "name", ["area_mean", "channel_moments", "copy_where", "picture_distance", "policy_inputs", "sample"]
)
def test_the_example_in_the_docstring_runs(name):
    tests = doctest.DocTestFinder().find(getattr(dense, name), name, globs={"torch": torch, "sparseblock": sparseblock})
    assert any(test.examples for test in tests)
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
