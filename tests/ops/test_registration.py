"""The ops as torch.library sees them: schema, fake, tracing, versions; and their examples run."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import sparseblock
from sparseblock import BlockSet, ops
from sparseblock.backends import gradients
from sparseblock.testing import channels_last

REGISTERED = sorted(set(ops.__all__) - {"cat_slices"})
BLOCKS = BlockSet.from_mask(torch.tensor([[[True, False], [False, True]]]), block=4)
PLACE = (BLOCKS.index, BLOCKS.count, BLOCKS.block)


def plane(channels: int = 4) -> torch.Tensor:
    return channels_last(torch.randn(1, channels, 8, 8))


def samples(op: str) -> list[tuple]:
    """Arguments of the registered op: with and without what is optional."""
    x, out, slope = plane(), plane(), torch.rand(4)
    weight, bias = torch.randn(4, 4, 3, 3), torch.randn(4)
    one = [1, 1]
    return {
        "conv2d": [
            (x, weight, bias, *PLACE, out, one, one, one, 1, "prelu", slope, None, plane(), "mul", "zeros", "direct"),
            (x, weight, None, *PLACE, out, one, one, one, 1, None, None, None, None, "add", "zeros", "winograd_4x4"),
            (x, weight, None, *PLACE, out, one, one, one, 1, None, None, None, None, "add", "reflect", "direct"),
        ],
        "conv_transpose2d": [
            (x, weight, bias, *PLACE, out, one, one, [0, 0], one, 1, "prelu", slope, None, plane(), "mul"),
            (x, weight, None, *PLACE, out, one, one, [0, 0], one, 1, None, None, None, None, "add"),
        ],
        "max_pool2d": [(x, *PLACE, out, [3, 3], one, one, one, False)],
        "avg_pool2d": [
            (x, *PLACE, out, [3, 3], one, one, False, True, None),
            (x, *PLACE, out, [3, 3], one, one, False, False, 2),
        ],
        "interpolate": [(x, *PLACE, out, "nearest", False, None), (x, *PLACE, out, "bilinear", True, [1.0, 1.0])],
        "add": [(x, plane(), *PLACE, out, None, None, None), (x, plane(), *PLACE, out, "prelu", slope, None)],
        "mul": [(x, other, *PLACE, out, "silu", None, None) for other in (plane(), torch.rand(1, 4, 1, 1))],
        "activation": [(x, *PLACE, out, "relu", None, None), (x, *PLACE, out, "prelu", slope, None)],
        "affine": [(x, slope, bias, *PLACE, out, "clamp", None, [0.0, 6.0])],
        "adaptive_avg_pool2d": [(x, *PLACE, out)],
        "adaptive_max_pool2d": [(x, *PLACE, out)],
        "block_moments": [(x, *PLACE, plane(8), [1, 1], 2)],
        "block_norm": [(x, None, *PLACE, plane(1), [1, 1], "max"), (x, plane(), *PLACE, plane(1), [1, 1], "l2")],
        "global_avg_pool2d": [(x, *PLACE, plane()[:, :, :1, :1], [8, 8], [1, 1])],
        "group_norm": [
            (x, plane(8), slope, bias, *PLACE, out, 2, 1e-5, [1, 1], "prelu", slope, None),
            (x, plane(8), None, None, *PLACE, out, 4, 1e-5, [1, 1], None, None, None),
        ],
        "layer_norm": [
            (x, slope, bias, *PLACE, out, 1e-5, "prelu", slope, None),
            (x, None, None, *PLACE, out, 1e-5, None, None, None),
        ],
        "normalize": [(x, *PLACE, out, 1e-12)],
        "softmax": [(x, *PLACE, out)],
        "pad": [
            (x, *PLACE, channels_last(torch.zeros(1, 4, 9, 9)), [0, 1, 1, 0], "constant", 2.0),
            (x, *PLACE, channels_last(torch.zeros(1, 4, 9, 9)), [0, 1, 1, 0], "reflect", 0.0),
        ],
        "pixel_shuffle": [(x, *PLACE, channels_last(torch.zeros(1, 1, 16, 16)), 2)],
        "pixel_unshuffle": [(x, *PLACE, channels_last(torch.zeros(1, 16, 4, 4)), 2)],
        "channel_shuffle": [(x, *PLACE, out, 2)],
        "cat": [([plane(1), plane(3)], *PLACE, out)],
        "gather": [(x, *PLACE, channels_last(torch.randn(2, 4, 6, 6)), 1)],
        "scatter": [(channels_last(torch.randn(2, 4, 4, 4)), *PLACE, out)],
    }[op]


def test_every_op_is_registered_under_its_name():
    assert all(hasattr(torch.ops.sparseblock, op) for op in REGISTERED)


@pytest.mark.parametrize("op", REGISTERED)
def test_opcheck(op):
    for sample in samples(op):
        torch.library.opcheck(getattr(torch.ops.sparseblock, op).default, sample)


@pytest.mark.parametrize("op", sorted(gradients.KEPT))
def test_opcheck_with_gradients(op):
    overload = getattr(torch.ops.sparseblock, op).default
    out = [argument.name for argument in overload._schema.arguments].index("out")

    def leaf(value):
        if isinstance(value, list) and isinstance(value[0], torch.Tensor):
            return [leaf(tensor) for tensor in value]
        tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.detach().clone().requires_grad_() if tensor else value

    def halves(value):
        return value.bfloat16() if isinstance(value, torch.Tensor) and value.dim() == 4 else value

    stored = [tuple(map(halves, samples(op)[0]))] if op in ("conv2d", "layer_norm", "mul") else []
    for sample in [*samples(op), *stored]:
        torch.library.opcheck(overload, tuple(v if i == out else leaf(v) for i, v in enumerate(sample)))


@pytest.mark.parametrize("op", REGISTERED)
def test_a_call_counts_as_a_change_of_out(op):
    for sample in samples(op):
        overload = getattr(torch.ops.sparseblock, op).default
        out = sample[[argument.name for argument in overload._schema.arguments].index("out")]
        version = out._version
        overload(*sample)
        assert out._version > version


def test_fake_tensors_pass_validation_and_run_nothing():
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, out = plane(), plane()
        assert ops.conv2d(x, torch.randn(4, 4, 3, 3), None, BLOCKS, out, padding=1) is out


def test_torch_compile_traces_an_op_without_a_break():
    weight, x = torch.randn(4, 4, 3, 3), plane()

    def run(x, out):
        ops.conv2d(x, weight, None, BLOCKS, out, padding=1, activation="relu", residual=out)
        return ops.add(out, out, BLOCKS, out)

    expected = run(x, torch.zeros_like(x))
    torch._dynamo.reset()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, torch.zeros_like(x)), expected)


def test_torch_compile_traces_gradients():
    weight, x = torch.randn(4, 4, 3, 3, requires_grad=True), plane().requires_grad_()

    def run(x, out):
        ops.conv2d(x, weight, None, BLOCKS, out, padding=1, activation="relu")
        return ops.add(out, out, BLOCKS, out)

    def grads(function):
        return torch.autograd.grad(function(x, torch.zeros_like(x)).sum(), [x, weight])

    expected = grads(run)
    torch._dynamo.reset()
    compiled = grads(torch.compile(run, backend="aot_eager", fullgraph=True))
    assert all(torch.equal(*pair) for pair in zip(compiled, expected, strict=True))


@pytest.mark.parametrize("name", ["cat_slices", *REGISTERED])
def test_the_example_in_the_docstring_runs(name):
    module = importlib.import_module(f"sparseblock.ops.{'cat' if name == 'cat_slices' else name}")
    globs = {"torch": torch, "sparseblock": sparseblock, "BlockSet": BlockSet}
    tests = doctest.DocTestFinder().find(getattr(module, name), name, globs=globs)
    examples = [test for test in tests if test.examples]
    assert examples, f"{name} has no example"
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0
