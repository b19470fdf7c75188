"""Capture and lowering: in-place operators, constants, rules and their limits, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from networks import Call, shuffled
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan.compile import trace
from sparseblock.plan.ir import Torch
from sparseblock.plan.reference import Reference
from sparseblock.testing import assert_matches, tolerance

FRAME = torch.randn(1, 4, 16, 24)


def run(function, frame=FRAME):
    """The plan's output for one frame, and the network's."""
    network = Call("", function).eval()
    plan = sparseblock.compile(network, frame, block_size=8)
    return plan(frame, None, plan.new_state()), network(frame.clone())


def in_place_through_alias(x):
    y = x * 2
    z = y.view(y.shape)
    z.relu_()
    return y + z


def in_place_on_clone(x):
    y = x * 2
    y.clone().zero_().add_(1)
    return y


def in_place_on_disjoint_halves(x):
    a, b = (x * 2).chunk(2, 1)
    a.relu_()
    return torch.cat([a, b], 1)


def in_place_chain(x):
    y = F.relu(x * 3, inplace=True)
    y += 1
    y.mul_(0.5).sub_(0.25)
    return F.leaky_relu(y, 0.1, inplace=True)


def in_place_without_rule(x):
    return (x * 2).sin_().add_(1)


def in_place_on_frame(x):
    x.relu_()
    return x + 1


def in_place_on_some_channels(x):
    y = x * 2
    y[:, 1::2] = y[:, 1::2].sigmoid()
    y[:, ::2].mul_(2).add_(1)
    return y


def in_place_on_some_pixels(x):
    y = x * 2
    y[..., :5, 3:9] = 0.5
    y[:, -1, 2, 1:-1].neg_()
    return y


def in_place_on_a_view_in_another_order(x):
    y = x * 2
    y.view(1, 2, 2, 16, 24).permute(0, 2, 1, 3, 4)[:, 0].mul_(3)
    return y


def in_place_on_what_is_no_map(x):
    y = x.flatten(2)
    z = y.clone()
    z[:, 0] = z[:, 0] * 2
    z[:, 1].add_(y[:, 3])
    return z


def in_place_on_part_of_a_constant(x):
    y = torch.zeros(1, 4, 16, 24)
    y[:, 1] = 5
    y[:, 2].add_(3)
    z = x * y
    y[:, :2] = x[:, :2]
    return z + y


@pytest.mark.parametrize(
    "function",
    [
        *(in_place_on_some_channels, in_place_on_some_pixels, in_place_on_a_view_in_another_order),
        *(in_place_on_what_is_no_map, in_place_on_part_of_a_constant),
        *(in_place_through_alias, in_place_on_clone, in_place_on_disjoint_halves),
        *(in_place_chain, in_place_without_rule, in_place_on_frame),
    ],
)
def test_in_place_is_functional(function):
    frame = FRAME.clone()
    out, expected = run(function, frame)
    assert_matches(out, expected, tolerance(1, expected))
    assert torch.equal(frame, FRAME), "the frame is the caller's"


def test_constants_are_evaluated():
    def function(x):
        weight = torch.ones(3, 4, 1, 1) * torch.arange(4.0).view(1, 4, 1, 1)
        return F.conv2d(x, weight / weight.sum())

    graph, _ = trace(Call("", function).eval(), FRAME)
    assert [node.label for node in graph.nodes] == ["copy", "conv2d"]


def test_what_takes_but_the_shape_of_a_map_is_a_constant():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = torch.tensor([2.0, 4.0])

        def forward(self, x):
            x = x * 2
            scale = x.new_full((4, 1, 1), self.steps[1]) + torch.arange(4).type_as(x).view(4, 1, 1)
            return x * scale + (torch.zeros_like(x) + x.new_ones(1) - torch.full_like(x, 3.0))[:, :, :1, :1]

    network = Net().eval()
    graph, _ = trace(network, FRAME)
    assert [node.label for node in graph.nodes] == ["copy", *["affine"] * 3]
    plan = sparseblock.compile(network, FRAME, block_size=8)
    torch.testing.assert_close(plan(FRAME, None, plan.new_state()), network(FRAME))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: shuffled(x * 2, 2),
        lambda x: (x * 2).reshape(1, 2, 2, 16, 24).permute(0, 2, 1, 3, 4).reshape(x.shape),
        lambda x: (x * 2).view(-1, 2, 2, 16, 24).transpose(-3, -4).contiguous().flatten(1, 2),
        lambda x: F.channel_shuffle(x * 2, 2),
    ],
)
def test_channel_shuffles_are_known_however_they_are_written(function):
    out, expected = run(function)
    assert torch.equal(out, expected)
    report = sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report()
    assert report.nodes[-1].op == "channel_shuffle"
    assert all(node.placement == "sparse" for node in report.nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * 2).view(1, 2, 2, 16, 24).transpose(1, 3).reshape(x.shape),
        lambda x: (x * 2).view(1, 2, 2, 24, 16).transpose(1, 2).reshape(x.shape),
        lambda x: (x * 2).view(1, 4, 4, 4, 24).transpose(1, 2).reshape(x.shape),
        lambda x: (x * 2).view(1, 2, 2, 16, 24).permute(0, 2, 1, 4, 3).reshape(x.shape),
        lambda x: (x * 2).view(1, 2, 2, 16, 24).transpose(1, 2).reshape(1, 4, 24, 16),
    ],
)
def test_what_only_looks_like_a_channel_shuffle_is_none(function):
    out, expected = run(function)
    assert torch.equal(out, expected)
    assert "channel_shuffle" not in str(sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([x * 2, x + 1, x]).sum(0),
        lambda x: torch.stack([x * 2, x + 1, x], dim=-1).sum(-1),
        lambda x: torch.stack([x, x * 2], 2).sum(dim=(2,), dtype=torch.float32),
        lambda x: torch.stack([x * 2]).sum(0),
    ],
)
def test_sums_of_stacks_are_sums(function):
    out, expected = run(function)
    torch.testing.assert_close(out, expected)
    report = sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report()
    assert all(node.placement == "sparse" for node in report.nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([x * 2, x + 1], 1).sum(2),
        lambda x: torch.stack([x * 2, x + 1]).sum(0, keepdim=True),
        lambda x: torch.stack([x * 2, x + 1]).sum(0, dtype=torch.float64),
        lambda x: torch.stack([x * 2, x + 1]).sum(),
        lambda x: torch.stack([x.mean(1), x.amax(1)], 1).sum(1),
        lambda x: torch.stack([x * 2, torch.ones(x.shape)]).sum(0),
        lambda x: torch.stack([x * 2, x + 1]).sum((0, 1)),
        lambda x: (x * 2).sum(1),
    ],
)
def test_what_only_looks_like_a_sum_of_a_stack_is_left_to_torch(function):
    out, expected = run(function)
    assert torch.equal(out, expected)
    report = sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report()
    assert any(node.op.startswith("aten.sum") for node in report.nodes)


@pytest.mark.parametrize(
    ("function", "labels"),
    [
        (lambda x: torch.addcmul(SCALE[:, None, None], x, SCALE[:, None, None]), ["affine"]),
        (lambda x: torch.addcmul(x, SCALE[:, None, None], x.relu(), value=-2), ["copy", "relu", "affine", "add"]),
        (lambda x: torch.addcmul(torch.ones(1), x[:, :1], x, value=3), ["copy", "slice", "mul+affine"]),
        (lambda x: torch.linalg.vector_norm(x * 2, dim=(-1, 2), keepdim=True), ["affine", "mul"]),
    ],
)
def test_products_and_norms_of_the_frame_are_known(function, labels):
    out, expected = run(function)
    assert_matches(out, expected, tolerance(FRAME[0, 0].numel(), expected, expected))
    nodes = sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report().nodes
    assert [node.op for node in nodes if node.placement == "sparse" and node.op != "block_moments"] == labels
    assert all(node.op == "aten.sqrt.default" for node in nodes if node.placement == "dense")


UNRULED = {
    "but the L2 norm over rows": lambda x: torch.linalg.vector_norm(x, 1, (2, 3), keepdim=True),
    "a map plus a product of constants": lambda x: torch.addcmul(x, torch.ones(1), torch.ones(1)),
    "adds to each element of a map": lambda x: torch.addcmul(torch.ones(4, 1, 1), x[:, :1], torch.ones(1)),
    "a sum but that of a stack": lambda x: x.sum(1, keepdim=True),
    "aten.sin.default": torch.sin,
    "a power of 3": lambda x: x**3,
    "clamp to another map": lambda x: x.clamp(x[:, :1]),
    "the identity from 3.0 on": lambda x: F.softplus(x, threshold=3.0),
    "varies over the frame": lambda x: x + torch.arange(24.0),
    "other axes than rows and columns": lambda x: x.mean(2, keepdim=True),
    "places of maxima": lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[1],
    "not along the channels": lambda x: torch.cat([x, x], 2),
    "slice along axis 2": lambda x: x[:, :, 1:],
    "in steps of 2": lambda x: x[:, ::2],
    "adds maps of two shapes": lambda x: x + x[:, :, :1],
    "multiplies maps of two shapes": lambda x: x[:, :1, :1, :1] * x,
    "is not float32": lambda x: F.relu(x.double()),
    "no float32 map": lambda x: F.relu(x.sum((2, 3))),
    "along another axis than the channels": lambda x: F.linear(x, torch.ones(3, 24)),
    "a softmax along axis 2": lambda x: x.softmax(2),
    "layer norm along other axes": lambda x: F.layer_norm(x, (16, 24)),
    "rule for aten.permute": lambda x: x.permute(0, 3, 2, 1),
    "along other axes than rows and columns": lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)),
    "takes no channel of a map": lambda x: torch.cat([(x * 2)[:, 2:2], x], 1),
    "an average divided by -2": lambda x: F.avg_pool2d(x, 2, divisor_override=-2),
    "shape or type": lambda x: x.flatten(2),
    "statistics are those of the whole frame": lambda x: F.batch_norm(x, None, None, training=True),
    "its weight is computed from the frame": lambda x: F.conv2d(x, x[:, :, :3, :3]),
    "at random": lambda x: F.dropout(x, 0.0, training=True),
}


@pytest.mark.parametrize("reason", UNRULED)
def test_no_rule_runs_dense_and_says_why(reason):
    out, expected = run(UNRULED[reason])
    assert_matches(out, expected, tolerance(FRAME.numel(), FRAME, FRAME))  # torch sums in another order here
    report = sparseblock.compile(Call("", UNRULED[reason]).eval(), FRAME, block_size=8).report()
    dense = [node for node in report.nodes if node.placement == "dense"]
    assert dense and any(reason in node.reason for node in dense)
    assert reason in str(report)


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (lambda x: F.avg_pool2d(x, (16, 24)), "global_avg_pool2d"),
        (lambda x: F.avg_pool2d(x, 2560, ceil_mode=True), "global_avg_pool2d"),
        (lambda x: F.avg_pool2d(x, (5, 40), ceil_mode=True), "avg_pool2d"),
        (lambda x: F.max_pool2d(x, 40, ceil_mode=True), "max_pool2d"),
    ],
)
def test_windows_larger_than_the_map(function, label):
    out, expected = run(function)
    assert_matches(out, expected, tolerance(FRAME[0, 0].numel(), FRAME))
    graph, _ = trace(Call("", function).eval(), FRAME)
    assert graph.nodes[-1].label == label
    grid = sparseblock.BlockGrid(16, 24, 8)
    (reference,) = Reference(graph, grid)(FRAME, torch.ones(grid.rows, grid.cols, dtype=torch.bool))
    assert_matches(reference.float(), expected, tolerance(FRAME[0, 0].numel(), FRAME))


@pytest.mark.parametrize("function", [lambda x: (x * 2)[:, -100:2], lambda x: (x * 2)[:, -3:2]])
def test_slices_from_the_end_are_clamped(function):
    out, expected = run(function)
    assert torch.equal(out, expected)


def test_dense_values_of_any_type_are_returned():
    def function(x):
        values, places = x.max(1)
        return {"mask": values > 0, "top": (places, x.mean()), "eight": 8, "none": None}

    out, expected = run(function)
    assert out.keys() == expected.keys() and out["eight"] == 8 and out["none"] is None
    assert torch.equal(out["mask"], expected["mask"]) and torch.equal(out["top"][0], expected["top"][0])
    assert_matches(out["top"][1], expected["top"][1], tolerance(FRAME.numel(), FRAME))


class ChangesBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(1)
        return x * self.seen


def changes_what_two_views_show(x):
    y = x * 2
    first = y[:, :2]
    y[:, 1:3].relu_()
    return first


def branches_on_values(x):
    return x if x.sum() > 0 else -x


REFUSED = {
    "ChangesBuffer is in training mode; call model.eval() first": ChangesBuffer().train(),
    "add_ changes seen in place; a plan's constants cannot change": ChangesBuffer().eval(),
    "relu_ changes in place what slice_1 shows in part": Call("", changes_what_two_views_show).eval(),
    "Call cannot be captured at [1, 4, 16, 24] (GuardOnDataDependentSymNode": Call("", branches_on_values).eval(),
    "the size of nonzero (aten.nonzero.default) depends on values": Call("", lambda x: x.nonzero()).eval(),
    "weight is torch.float64; plans compute in float32": nn.Conv2d(4, 4, 1).double().eval(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(SparseBlockError, match=re.escape(message)) as caught:
        sparseblock.compile(REFUSED[message], FRAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME[0], r"example_frame is torch.float32 \[4, 16, 24\] on cpu; it must be a float32 frame \[n, c, h, w\]"),
        (FRAME.double(), r"example_frame is torch.float64 \[1, 4, 16, 24\]"),
        (None, "example_frame is a NoneType; it must be a tensor"),
    ],
)
def test_refused_examples(frame, message):
    with pytest.raises(SparseBlockError, match=message):
        sparseblock.compile(nn.ReLU().eval(), frame)


def test_not_a_module():
    with pytest.raises(SparseBlockError, match=r"model is a builtin_function_or_method; it must be a torch.nn.Module"):
        sparseblock.compile(torch.relu, FRAME)


def test_a_models_own_error_comes_through():
    class Picky(nn.Module):
        def forward(self, x):
            raise SparseBlockError("picky: height and width must be multiples of 7")

    with pytest.raises(SparseBlockError, match=r"^picky: height and width must be multiples of 7$"):
        sparseblock.compile(Picky().eval(), FRAME)


def test_a_model_that_fails_by_itself_is_told_so():
    rule = "check the model and the size and channels of example_frame"
    for network, error in (
        (Call("", lambda x: x / (1 // 0)).eval(), "ZeroDivisionError: integer division or modulo by zero"),
        (
            nn.Conv2d(3, 4, 1).eval(),
            "RuntimeError: Given groups=1, weight of size [4, 3, 1, 1], expected input[1, 4, 16, 24] to have "
            "3 channels, but got 4 channels instead",
        ),
    ):
        message = f"compile: {type(network).__name__} itself fails on a frame of [1, 4, 16, 24] ({error}); {rule}"
        with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
            sparseblock.compile(network, FRAME)


def test_a_refusal_prints_nothing():
    """In a process of its own: torch's log handlers keep the stderr that was there first."""
    script = (
        "import sparseblock, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
        "try:\n"
        "    sparseblock.compile(Net().eval(), torch.randn(1, 4, 16, 24))\n"
        "except sparseblock.SparseBlockError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_weights_are_the_plans_own():
    network = nn.Conv2d(4, 4, 1).eval()
    plan = sparseblock.compile(network, FRAME, block_size=8)
    state = plan.new_state()
    before = plan(FRAME, None, state).clone()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
    assert torch.equal(plan(FRAME, None, state), before)


def test_grad_mode_of_the_model_does_not_matter():
    def function(x):
        with torch.no_grad():
            y = x * 2
        return y + x

    graph, _ = trace(Call("", function).eval(), FRAME)
    assert not any(isinstance(node.op, Torch) for node in graph.nodes)


SCALE = torch.linspace(0.5, 2, 4)


def by_hand(x, power=2, axis=1, eps=1e-6, scale=SCALE):
    """Layer norm over channels as ConvNeXt and Segment Anything write it."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(power).mean(axis, keepdim=True)
    return scale[:, None, None] * ((x - mean) / torch.sqrt(variance + eps)) + scale[:, None, None]


@pytest.mark.parametrize(
    ("function", "labels"),
    [
        (lambda x: x.softmax(1), ["copy", "softmax"]),
        (lambda x: nn.Softmax2d()(x), ["copy", "softmax"]),
        (lambda x: F.normalize(x, dim=1), ["copy", "normalize"]),
        (lambda x: F.normalize(x[:, :1], dim=-3), ["copy", "slice", "normalize"]),
        (lambda x: x / x.norm(dim=1, keepdim=True), ["copy", "normalize"]),
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,), SCALE, SCALE).permute(0, 3, 1, 2), ["copy", "layer_norm"]),
        (
            lambda x: F.gelu(F.layer_norm(x.permute(0, 2, -1, -3), (4,))).permute(0, -1, 1, 2),
            ["copy", "layer_norm+gelu"],
        ),
        (by_hand, ["copy", "layer_norm"]),
        (lambda x: by_hand(x[:, 1:], scale=SCALE[1:]), ["copy", "slice", "layer_norm"]),
        (lambda x: (x - x.mean(1, keepdim=True)) / 2, ["copy", "conv2d", "add+affine"]),
        (lambda x: x.mean(-3, keepdim=True) * x, ["copy", "conv2d", "mul"]),
        (lambda x: (x.permute(0, 2, 3, 1).contiguous() * SCALE).permute(0, 3, 1, 2), ["affine"]),
        (lambda x: (x.permute(0, 2, 3, 1) + x.permute(0, 2, 3, 1).relu()).permute(0, 3, 1, 2), ["copy", "relu", "add"]),
        (lambda x: x.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2), ["copy", "softmax"]),
        (lambda x: F.linear(x.permute(0, 2, 3, 1), torch.eye(4)).permute(0, 3, 1, 2), ["copy", "conv2d"]),
        (lambda x: (x.permute(0, 2, 3, 1).relu() @ torch.eye(4)).softmax(2), ["relu", *["aten"] * 3]),
    ],
)
def test_norms_over_channels_are_known_however_they_are_written(function, labels):
    out, expected = run(function)
    assert_matches(out, expected, tolerance(4, expected, SCALE))
    nodes = sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report().nodes
    assert [node.op.split(".")[0] for node in nodes] == labels
    assert all((node.placement == "sparse") != node.op.startswith("aten") for node in nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat(x.split([1, 3], -1)[::-1], -1),
        lambda x: torch.cat([x.chunk(2, 3)[1].relu(), x[..., -3:], x.narrow(-1, 0, 1) * 2], 3),
    ],
)
def test_channels_are_taken_apart_where_they_are_last_too(function):
    network = Call("", lambda x: function((x * 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)).eval()
    plan = sparseblock.compile(network, FRAME, block_size=8)
    assert torch.equal(plan(FRAME, None, plan.new_state()), network(FRAME))
    assert all(node.placement == "sparse" for node in plan.report().nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([(x * 2).permute(0, 2, 3, 1)] * 2, 1),
        lambda x: (x * 2).permute(0, 2, 3, 1).split([4, 12], 1)[1],
        lambda x: (x * 2).permute(0, 2, 3, 1)[:, 1:],
    ],
)
def test_rows_are_not_channels_where_those_are_last(function):
    out, expected = run(function)
    assert torch.equal(out, expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x / x.norm(dim=1, keepdim=True).clamp(0.1, 1.0),
        lambda x: x / x.norm(1, dim=1, keepdim=True),
        lambda x: by_hand(x, power=4),
        lambda x: by_hand(x, axis=2),
        lambda x: by_hand(x, eps=torch.linspace(1, 2, 24)),
        lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1),
        lambda x: (x + x.mean(1, keepdim=True)) / torch.sqrt((x - x.mean(1, keepdim=True)).pow(2).mean(1, True) + 1),
        lambda x: x / x.norm(dim=2, keepdim=True),
        lambda x: x / x.relu().norm(dim=1, keepdim=True),
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (24, 4)).permute(0, 3, 1, 2),
        lambda x: F.layer_norm(x.permute(0, 1, 3, 2), (16,)),
        lambda x: x[:, :, :4, :4].permute(0, 2, 3, 1) * torch.linspace(1, 2, 4).reshape(4, 1, 1),
    ],
)
def test_what_only_looks_like_a_norm_over_channels_is_none(function):
    out, expected = run(function)
    assert_matches(out, expected, tolerance(4, expected))
    report = str(sparseblock.compile(Call("", function).eval(), FRAME, block_size=8).report())
    assert not any(name in report for name in ("  normalize", "  layer_norm", "  softmax"))
