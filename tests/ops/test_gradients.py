"""Gradients: by finite differences on the reference, the kernels against the reference, faults that must be caught."""

from __future__ import annotations

import importlib
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sparseblock import BlockSet, SparseBlockError, backend, ops
from sparseblock import blocks as blocks_module
from sparseblock.backends import gradients
from sparseblock.backends.gradients import block_moments, group_norm, mul, pad, reach
from sparseblock.ops import _register
from sparseblock.ops._check import ACTIVATIONS
from sparseblock.testing import assert_identical, assert_matches, channels_last, strategies, tolerance
from sparseblock.testing.case import Case
from sparseblock.testing.gradients import NORMS, check_gradients, grads_of, tensors_of, whole

OPS = sorted(gradients.KEPT.keys() & strategies.CASES.keys())
CPU = torch.device("cpu")
BACKENDS = ("cpu", "cuda", "triton")
ANY_BITS = ("activation", "cat", "channel_shuffle", "interpolate", "pad", "pixel_shuffle", "pixel_unshuffle")


def _on(device: torch.device, blocks: BlockSet) -> BlockSet:
    return replace(blocks, index=blocks.index.to(device), count=blocks.count.to(device))


def _longer(blocks: BlockSet) -> BlockSet:
    """The same list with rows past its count, of which nothing is known."""
    return replace(blocks, index=torch.cat([blocks.index, blocks.index.new_full((2, 3), 1 << 30)]))


def _list_as_on_a_device(monkeypatch):
    """Lists of masks, those of what active blocks reach among them, have room for every block, and nothing waits."""
    monkeypatch.setattr(blocks_module, "_listed", blocks_module._listed_by_sorting)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("op", OPS)
def test_a_call_that_is_differentiated_gives_the_same_bits(op, name, device, examples):
    @settings(max_examples=examples.max_examples // 5)
    @given(strategies.CASES[op]())
    def check(case):
        leaves = {key: x.detach().clone().to(device).requires_grad_() for key, x in tensors_of(case).items()}
        maps = {key: channels_last(leaves[key]) for key in case.maps}
        out = channels_last(torch.zeros(case.out_shape, dtype=case.dtype, device=device))
        given = {**case.keywords, **leaves, **maps, "blocks": _on(device, case.blocks)}
        with backend(name):
            found = case.call(**given, out=out.clone())
            assert found.requires_grad
            with torch.no_grad():
                assert_identical(found.detach().cpu(), case.call(**given, out=out).cpu())

    check()


def _every_window_has_a_pixel(case: Case) -> bool:
    """Whether no maximum is one of nothing, whose gradient PyTorch adds to memory outside of the map."""
    return bool(case.dense().isfinite().all())


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("op", OPS)
def test_gradients_are_the_references(op, name, device, examples, monkeypatch):
    if name != "cpu":
        _list_as_on_a_device(monkeypatch)

    @examples
    @given(
        strategies.CASES[op](),
        strategies.generators(),
        st.booleans(),
        st.booleans(),
        st.sampled_from([(), (), (2, 3), (0,), (2,)]),
    )
    def check(case, generator, stored, longer, repeated):
        case = whole(case)
        case = replace(case, blocks=_longer(case.blocks)) if longer else case
        allowed = relative = 0.0
        assume(op != "max_pool2d" or _every_window_has_a_pixel(case))
        if op in NORMS or op.startswith(("block_", "global_")):
            allowed, relative = _rounding(case)
        if op in ("avg_pool2d", "adaptive_avg_pool2d", "interpolate"):
            # A pixel of x enters at most every pixel of out, with weights of at most 1, at float32 positions.
            sides = sum(case.out_shape[2:]) + sum(case.maps["x"].shape[2:])
            allowed = tolerance(case.out_shape[2] * case.out_shape[3] + sides, torch.tensor(2.0))
        # Halves are what the case stores, and beside them parameters of their own; gradients are rounded to them once.
        dtype = None if stored else torch.float32
        check_gradients(case, allowed, generator, relative, dtype, name, device, repeated)

    check()


@pytest.mark.parametrize("op", OPS)
def test_what_needs_no_gradient_gets_none(op, monkeypatch):
    """Each tensor alone: its gradient has the bits that it has among all others, and no other is computed."""
    right = gradients.backward

    def watched(name, call, grad, needs):
        grads = right(name, call, grad, needs)
        assert grads.keys() == needs
        return grads

    monkeypatch.setattr(gradients, "backward", watched)

    @settings(max_examples=10)
    @given(strategies.CASES[op](), strategies.generators())
    def check(case, generator):
        grad, before = torch.randn(case.out_shape, generator=generator), torch.zeros(case.out_shape)
        for key, expected in grads_of(case, grad, before, "cpu", None).items():
            assert_identical(grads_of(case, grad, before, "cpu", None, of={key})[key], expected)

    check()


def _rounding(case: Case) -> tuple[float, float]:
    """What is allowed where values are not whole, absolute and relative: sums over channels, a cell or the map.

    Their terms are at most 3 * 3 * 2 times the steepest slope of a norm.
    """
    steepest, pixels = 1.0, case.out_shape[2] * case.out_shape[3] + case.maps.get("x", torch.ones(1)).shape[-1] ** 2
    if case.oracle.__name__ in ("layer_norm", "group_norm"):
        steepest = case.keywords["eps"] ** -0.5
    terms = case.out_shape[0] * pixels + case.out_shape[1] + 8
    return tolerance(terms, torch.tensor(18.0 * steepest)), (terms + 1) * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("op", OPS)
def test_references_by_finite_differences(op):
    @settings(max_examples=5)
    @given(strategies.CASES[op]().filter(lambda case: sum(x.numel() for x in tensors_of(case).values()) < 400))
    def check(case):
        assume(op != "max_pool2d" or _every_window_has_a_pixel(case))
        if op in ANY_BITS:
            case = replace(case, maps={key: x.nan_to_num(0).clamp(-3, 3) for key, x in case.maps.items()})
        assume(case.keywords.get("value", 0.0) > -torch.inf)
        generator = torch.Generator().manual_seed(0)
        keys, values = list(tensors_of(case)), []
        for x in tensors_of(case).values():  # without ties and kinks
            values.append((x + torch.rand(x.shape, generator=generator)).double().requires_grad_())

        def run(before, *given):
            cast = [
                channels_last(x) if x.dim() == 4 and key != "weight" else x for key, x in zip(keys, given, strict=True)
            ]
            named = {**case.maps, **case.keywords, **dict(zip(keys, cast, strict=True))}
            with backend("reference"):
                return case.call(**named, blocks=case.blocks, out=channels_last(before).clone())

        before = torch.rand(case.out_shape, generator=generator, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(run, (before, *values), fast_mode=True)

    check()


@pytest.mark.parametrize("name", BACKENDS)
def test_gather_and_scatter(name, device, examples):
    @examples
    @given(strategies.generators(), st.integers(0, 2), st.booleans())
    def check(generator, halo, whole):
        _check_gather_and_scatter(name, device, generator, halo, whole)

    check()


def _check_gather_and_scatter(name, device, generator, halo, whole):
    shape = (2, 3, 7, 10)
    blocks = BlockSet.from_mask(torch.rand(2, 2, 4, generator=generator) < 0.5, (5, 3))
    if whole:  # a list that is longer than its count
        blocks = _longer(blocks)
    packed_shape = (len(blocks.index), 3, 5 + 2 * halo, 3 + 2 * halo)

    def value(*size):
        return channels_last(torch.randint(-3, 4, size, generator=generator).float())

    def both(op, x, out, grad, **options):
        for of, dtype, where in ((name, torch.float32, device), ("reference", torch.float64, CPU)):
            leaves = [tensor.to(where, dtype).requires_grad_() for tensor in (x, out)]
            with backend(of):
                result = op(leaves[0], _on(where, blocks), leaves[1].clone(), **options)
            yield [found.cpu() for found in torch.autograd.grad(result, leaves, grad.to(where, dtype))]

    for op, x, out, options in (
        (ops.gather, value(*shape), value(*packed_shape), {"halo": halo}),
        (ops.scatter, value(*packed_shape[:2], 5, 3), value(*shape), {}),
    ):
        for actual, expected in zip(*both(op, x, out, value(*out.shape), **options), strict=True):
            assert_matches(actual, expected, 0.0)


def _conv_case() -> Case:
    generator = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(size, generator=generator) for size in ((1, 3, 12, 12), (4, 3, 3, 3), (4,)))
    case = strategies.cases.conv2d(x, weight, bias, padding=(1, 1), activation="relu")
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 0, 0] = True
    return whole(replace(case, blocks=BlockSet.from_mask(mask, 4)))


@pytest.mark.parametrize("key", ["x", "weight", "bias", "out"])
def test_a_gradient_of_inactive_blocks_is_caught(monkeypatch, key):
    """As if every block had been active, in one gradient at a time."""
    right = gradients.backward

    def wrong(name, call, grad, needs):
        every = BlockSet.all(1, 3, 3, 4)
        activated = call.activated.new_ones(9, *call.activated.shape[1:])
        everywhere = {**vars(call), "index": every.index, "count": every.count, "activated": activated}
        leaked = right(name, type(call)(**everywhere), grad, needs)
        return {**right(name, call, grad, needs), key: leaked[key]}

    monkeypatch.setattr(gradients, "backward", wrong)
    with pytest.raises(AssertionError, match="elements differ"):
        check_gradients(_conv_case(), 0.0, torch.Generator().manual_seed(0))


# The cpu's kernels of pooling and resizing look for nothing: every active pixel adds to where it came from.
@pytest.mark.parametrize(
    ("op", "name"),
    [("conv2d", "cpu"), *((op, gpu) for op in ("conv2d", "max_pool2d", "interpolate") for gpu in BACKENDS[1:])],
)
def test_a_halo_that_gets_no_gradient_is_caught(op, name, device, monkeypatch):
    x = _conv_case().maps["x"]
    case = {
        "conv2d": _conv_case,
        "max_pool2d": lambda: strategies.cases.max_pool2d(x, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)),
        "interpolate": lambda: strategies.cases.interpolate(x, (12, 12), mode="bilinear", scale_factor=(0.75, 0.75)),
    }[op]()
    case = replace(case, blocks=_conv_case().blocks)
    allowed = 1e-4 if op == "interpolate" else 0.0  # far below a pixel's part
    check_gradients(case, allowed, torch.Generator().manual_seed(0), name=name, device=device)
    for of_op in ("conv2d", "pool2d", "interpolate"):
        monkeypatch.setattr(reach, of_op, lambda given, index, count, *_: BlockSet(index, count, (1, 3, 3), (4, 4)))
    with pytest.raises(AssertionError, match="elements differ"):
        check_gradients(case, allowed, torch.Generator().manual_seed(0), name=name, device=device)


def test_an_activation_that_gets_no_gradient_is_caught(monkeypatch):
    right = gradients.record

    def wrong(*given):
        kept = right(*given)
        return {**kept, "activated": torch.ones_like(kept["activated"])}

    monkeypatch.setattr(gradients, "record", wrong)
    with pytest.raises(AssertionError, match="elements differ"):
        check_gradients(_conv_case(), 0.0, torch.Generator().manual_seed(0))


def _constant_statistics(monkeypatch):
    """Mean and variance that do not move with the map."""
    right = group_norm._statistics
    monkeypatch.setattr(
        group_norm,
        "_statistics",
        lambda call, moments: [x + 0 * moments.sum() for x in right(call, call.moments)],
    )


FAULTS = {
    "a factor of one": ("mul", lambda patch: patch.setattr(mul, "pack_second", lambda *_: 1.0)),
    "a residual's factor of one": ("conv2d", lambda patch: patch.setattr(gradients, "pack_second", lambda *_: 1.0)),
    "a mirror that gets nothing": (
        "pad",
        lambda patch: patch.setattr(
            pad, "folded", lambda grad, size, around, mode: F.pad(grad, [-side for side in around])
        ),
    ),
    "constant statistics": ("group_norm", _constant_statistics),
    "a mean of one pixel": (
        "block_moments",
        lambda patch: patch.setattr(
            block_moments, "pack_cells", lambda call, x: torch.ones_like(gradients.pack_cells(call, x))
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_one_gradient_is_caught(monkeypatch, name):
    op, plant = FAULTS[name]
    x, generator = torch.arange(2.0 * 4 * 6 * 6).reshape(2, 4, 6, 6) % 7 - 3, torch.Generator().manual_seed(0)
    weight, moments = torch.ones(4, 4, 1, 1), torch.cat([x[:, :, :2, :2], x[:, :, :2, :2].abs() + 1], 1)
    case = {
        "mul": lambda: strategies.cases.mul(x, x.flip(1), activation=None),
        "conv2d": lambda: strategies.cases.conv2d(x, weight, None, x.flip(1), combine="mul", activation=None),
        "pad": lambda: strategies.cases.pad(x, padding=(2, 1), mode="reflect"),
        "group_norm": lambda: strategies.cases.group_norm(x, moments, num_groups=2, cell=(3, 3), activation=None),
        "block_moments": lambda: strategies.cases.block_moments(x, cell=(3, 2), order=2),
    }[op]()
    check_gradients(case, _rounding(case)[0], generator)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="elements differ"):
        check_gradients(case, _rounding(case)[0], generator)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_every_activation(activation, name, device):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 9, 9, generator=generator) * 6 - 3
    bounds = (-0.5, 0.75) if activation == "clamp" else None
    slope = torch.rand(3) if activation == "prelu" else None
    case = strategies.cases.activation(x, activation=activation, slope=slope, bounds=bounds)
    # Slopes of at most 1.2 at values of at most 3, times whole numbers of at most 2, of a few roundings each; the
    # gradient of the slope itself is a sum over the pixels.
    allowed = tolerance(16 + x[0, 0].numel(), x, torch.tensor(2.0))
    check_gradients(case, allowed, generator, name=name, device=device)


@given(strategies.conv2d())
@settings(max_examples=30)
def test_any_number_of_threads(case):
    case = whole(case)
    generator = torch.Generator().manual_seed(0)
    grad, before = torch.randn(case.out_shape, generator=generator), torch.zeros(case.out_shape)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(grads_of(case, grad, before, "cpu", torch.float32))
    finally:
        torch.set_num_threads(threads)
    # The bias is summed by torch.
    assert all(torch.equal(found[0][key], other[key]) for other in found[1:] for key in found[0] if key != "bias")


@pytest.mark.parametrize("name", BACKENDS[1:])
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_any_number_of_multiprocessors(op, name, device, examples, monkeypatch):
    assert device.type == "cpu"  # a GPU has the same number every time
    launch = importlib.import_module(f"sparseblock.backends.{name}.launch")
    of_backend = {"cuda": "_EMULATED_MULTIPROCESSORS", "triton": "_INTERPRETED_PROGRAMS"}[name]

    @settings(max_examples=examples.max_examples // 3)
    @given(strategies.CASES[op]())
    def check(case):
        case, generator, found = whole(case), torch.Generator().manual_seed(0), []
        grad, before = torch.randn(case.out_shape, generator=generator), torch.zeros(case.out_shape)
        for number in (1, 7):
            monkeypatch.setattr(launch, of_backend, number)
            launch.multiprocessors.cache_clear()
            found.append(grads_of(case, grad, before, name, torch.float32))
        for key, actual in found[0].items():
            assert_identical(actual, found[1][key])

    check()
    launch.multiprocessors.cache_clear()


class _Waits(TorchDispatchMode):
    """Raises where the host would wait for what a device computes."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        assert op not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), op
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", BACKENDS[1:])
@pytest.mark.parametrize("op", [*OPS, "gather", "scatter"])
def test_nothing_waits_for_the_device(op, name, device, examples, monkeypatch):
    _list_as_on_a_device(monkeypatch)
    monkeypatch.setattr(_register, "check_count", lambda *_: None)  # is of the CPU alone
    right = gradients.backward

    def watched(*given):
        with _Waits():
            return right(*given)

    monkeypatch.setattr(gradients, "backward", watched)

    @settings(max_examples=examples.max_examples // 10)
    @given(strategies.CASES.get(op, strategies.add)())
    def check(case):
        if op in strategies.CASES:
            grads_of(case, torch.ones(case.out_shape), torch.zeros(case.out_shape), name, torch.float32, device)
        else:
            _check_gather_and_scatter(name, device, torch.Generator().manual_seed(0), 1, True)

    check()


def test_a_wait_for_the_device_is_seen():
    with _Waits(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        int(torch.ones(1))


@pytest.mark.parametrize("name", BACKENDS)
def test_two_frames_of_a_network_with_a_residual_in_place_and_a_concatenation_without_a_copy(name, device):
    generator = torch.Generator().manual_seed(0)

    def whole(*size):
        return torch.randint(-2, 3, size, generator=generator).float()

    frames, masks = [whole(1, 2, 8, 8) for _ in range(2)], [torch.ones(1, 2, 2).bool(), torch.rand(1, 2, 2) < 0.5]
    weights = [whole(3, 2, 3, 3), whole(3, 3, 3, 3), whole(2, 6, 1, 1)]

    def sparse(x, first, second, last):
        body, joined, out = (channels_last(torch.zeros(1, c, 8, 8, device=device)) for c in (3, 6, 2))
        total = 0.0
        for frame, mask in zip(x, masks, strict=True):
            blocks = BlockSet.from_mask(mask.to(device), 4)
            body, joined, out = body.clone(), joined.clone(), out.clone()
            left, right = ops.cat_slices(joined, [3, 3])
            ops.conv2d(channels_last(frame), first, None, blocks, left, padding=1, activation="relu")
            ops.conv2d(left, second, None, blocks, right, padding=1)
            ops.add(left, right, blocks, body, activation="relu6")
            ops.conv2d(joined, last, None, blocks, out, residual=None)
            ops.conv2d(body, last[:, :3].contiguous(), None, blocks, out, residual=out)
            total = total + (out * (torch.arange(64.0, device=device).view(8, 8) % 5)).sum()
        return total

    def dense(x, first, second, last):
        left = right = body = out = total = 0.0
        for frame, mask in zip(x, masks, strict=True):
            active = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
            left = torch.where(active, F.relu(F.conv2d(frame, first, padding=1)), left)
            right = torch.where(active, F.conv2d(left, second, padding=1), right)
            body = torch.where(active, F.relu6(left + right), body)
            out = torch.where(active, F.conv2d(torch.cat([left, right], 1), last) + F.conv2d(body, last[:, :3]), out)
            total = total + (out * (torch.arange(64.0).view(8, 8) % 5)).sum()
        return total

    results = []
    for run, dtype, where in ((sparse, torch.float32, device), (dense, torch.float64, CPU)):
        x = [frame.to(where, dtype).requires_grad_() for frame in frames]
        parameters = [weight.to(where, dtype).requires_grad_() for weight in weights]
        with backend(name):
            total = run(x, *parameters)
        grads = torch.autograd.grad(total, [*x, *parameters])
        results.append([found.cpu() for found in (total, *grads)])
    for actual, expected in zip(*results, strict=True):
        assert_matches(actual, expected, 0.0)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_out_itself_may_be_scaled(name):
    """What is read and written over is kept for the backward pass as it was."""
    x, scale = channels_last(torch.full((1, 2, 4, 4), 3.0)).requires_grad_(), torch.tensor([2.0, 5.0]).requires_grad_()
    place, blocks = x.clone(), BlockSet.all(1, 1, 1, 4)
    with backend(name):
        ops.affine(place, scale, torch.zeros(2), blocks, place)
    place.sum().backward()
    assert scale.grad.tolist() == [48.0, 48.0]
    assert torch.equal(x.grad, scale.detach()[:, None, None].expand(1, 2, 4, 4))


def test_no_graph_keeps_out_alive():
    x, weight = channels_last(torch.rand(1, 2, 4, 4)), torch.rand(2, 2, 1, 1, requires_grad=True)
    out = torch.zeros_like(x)
    ops.conv2d(x, weight, None, BlockSet.all(1, 1, 1, 4), out, activation="relu")
    gone = weakref.ref(out)
    del out
    assert gone() is None


@pytest.mark.parametrize("loss", [torch.sum, lambda y: y.square().sum()])
def test_a_second_derivative_is_refused(loss):
    """Also where the first one's is a constant: the gradient then still depends on the activation's input."""
    x, weight = channels_last(torch.randn(1, 2, 4, 4)).requires_grad_(), torch.randn(2, 2, 1, 1, requires_grad=True)
    y = ops.conv2d(x, weight, None, BlockSet.all(1, 1, 1, 4), torch.zeros_like(x), activation="silu")
    (slope,) = torch.autograd.grad(loss(y), x, create_graph=True)
    expected = torch.autograd.grad(loss(F.silu(F.conv2d(x, weight))), x)[0]
    torch.testing.assert_close(slope, expected)
    with pytest.raises(
        SparseBlockError, match=r"^conv2d: its gradient is differentiated, but ops are differentiable once"
    ):
        (loss(y) + slope.square().sum()).backward()


def test_an_input_that_was_written_over_since_is_refused():
    x, weight = channels_last(torch.rand(1, 2, 4, 4)), torch.rand(2, 2, 1, 1, requires_grad=True)
    out = torch.zeros_like(x)
    ops.conv2d(x, weight, None, BlockSet.all(1, 1, 1, 4), out)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("op", ["conv2d", "group_norm", "layer_norm"])
def test_rows_past_the_count_count_for_nothing(op, name, device):
    """Neither do the values of an image that has no active block, nor pixels outside of the frame."""
    x = torch.arange(2.0 * 4 * 6 * 6).reshape(2, 4, 6, 6) % 7 - 3
    x[0] = torch.nan
    moments = torch.cat([x[:, :, :2, :2], x[:, :, :2, :2].abs() + 1], 1)
    parameters, gate = (torch.ones(4), torch.zeros(4)), x[:, :, :1, :1]
    case = {
        "conv2d": lambda: strategies.cases.conv2d(x, torch.ones(4, 4, 1, 1), torch.ones(4), gate, combine="mul"),
        "group_norm": lambda: strategies.cases.group_norm(x, moments, *parameters, num_groups=2, cell=(3, 3)),
        "layer_norm": lambda: strategies.cases.layer_norm(x, *parameters, eps=0.0),
    }[op]()
    blocks = BlockSet.from_index(torch.tensor([[1, 0, 0], [1, 1, 1]], dtype=torch.int32), (2, 2, 2), 4)
    exact, longer = (
        grads_of(
            replace(case, blocks=given), torch.ones(case.out_shape), torch.zeros(case.out_shape), name, None, device
        )
        for given in (blocks, _longer(blocks))
    )
    # Sums over two blocks of at most 16 pixels, of x times its gate or, which is less, of normalized values.
    allowed = tolerance(32, torch.tensor(9.0))
    for key in ("weight", "bias"):
        assert exact[key].isfinite().all()
        assert_matches(longer[key], exact[key], allowed)


def test_every_op_has_a_gradient():
    assert gradients.KEPT.keys() == set(ops.__all__) - {"cat_slices"}


def test_a_parameter_as_out_is_refused():
    x = channels_last(torch.rand(1, 2, 4, 4))
    out = torch.zeros_like(x).requires_grad_()
    with pytest.raises(SparseBlockError) as error:
        ops.activation(x, BlockSet.all(1, 1, 1, 4), out)
    assert str(error.value) == (
        "activation: out requires grad and is nobody's result, so what is written over it would be lost; "
        "pass out.clone(), or call the op under torch.no_grad()"
    )
