"""`sparseblock.verify` finds planted faults, and names the layer they are in."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch
from miniatures import miniature
from test_exact import clip, exact
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan import changes
from sparseblock.plan.ir import Conv2d
from sparseblock.plan.steps import Steps

LAYER = "body.2"
verification = sys.modules["sparseblock.plan.verify"]  # the package has the function by that name


def wrong_dilation(monkeypatch):
    """The kernel of one layer spreads its taps too far."""
    make = Steps._step

    def step(self, node, *args):
        made = make(self, node, *args)
        if node.origin == LAYER:
            made.u.conv2d.dilation_h = made.u.conv2d.dilation_w = 2
        return made

    monkeypatch.setattr(Steps, "_step", step)


def halo_not_followed(monkeypatch):
    """A change does not reach the neighbours' tiles in one layer."""
    find = changes.reads

    def reads(node, *args):
        outputs, sources = find(node, *args)
        centre = outputs == sources
        return (outputs[centre], sources[centre]) if node.origin == LAYER else (outputs, sources)

    monkeypatch.setattr(changes, "reads", reads)


def stale_list(monkeypatch):
    """One layer hears of no change at all."""
    spread = changes.Changes._spread

    def deaf(self, node):
        made = spread(self, node)
        if node.origin == LAYER:
            made.n_sources = 0
        return made

    monkeypatch.setattr(changes.Changes, "_spread", deaf)


def wrong_weight(monkeypatch):
    """The kernel of one layer has other weights than the graph."""
    make = Steps._step

    def step(self, node, graph, *args):
        if node.origin == LAYER and isinstance(node.op, Conv2d):
            weight = node.op.weight.clone()
            weight[3, 2, 0, 1] *= 1.001
            node = type(node)(type(node.op)(**{**vars(node.op), "weight": weight}), *list(vars(node).values())[1:])
        return make(self, node, graph, *args)

    monkeypatch.setattr(Steps, "_step", step)


@pytest.mark.parametrize("plant", [wrong_dilation, halo_not_followed, stale_list, wrong_weight])
def test_a_planted_fault_is_found_at_its_layer(plant, monkeypatch):
    case = miniature("vdsr")
    frames = clip(case, 8)
    assert sparseblock.verify(exact(case), frames)
    plant(monkeypatch)
    report = sparseblock.verify(exact(case), frames)
    assert not report
    assert report.first.layer == LAYER
    assert f"first layer that differs: {LAYER}, frame " in str(report)


def test_a_difference_says_where_and_how_much(monkeypatch):
    case = miniature("vdsr")
    stale_list(monkeypatch)
    frames = [case.frames()]
    frames.append(frames[0].clone())
    frames[1][0, 0, 20, 30] += 1
    plan = exact(case)
    first = sparseblock.verify(plan, frames).first
    state, fresh = plan.new_state(), plan.new_state()
    for frame in frames:
        plan(frame, None, state)
    plan(frames[1], None, fresh)
    name = next(node.output for node in plan.graph.nodes if node.origin == LAYER)
    assert first.frame == 1 and first.ulp > 1
    assert first.value == float(state[name][first.place]) and first.expected == float(fresh[name][first.place])


def test_a_bounded_plan_that_holds_back_too_much_is_found(monkeypatch):
    case = miniature("vdsr")
    plan = exact(case, 0.05)
    plan.tolerances.update({name: 0.005 for name in plan.tolerances})
    assert not sparseblock.verify(plan, clip(case, 4))


def test_what_verify_refuses():
    case = miniature("vdsr")
    with pytest.raises(SparseBlockError, match="only what an exact plan"):
        sparseblock.verify(sparseblock.compile(case.network, case.frames(), 16), [case.frames()])
    with pytest.raises(SparseBlockError, match="frames is empty"):
        sparseblock.verify(exact(case), [])
    with pytest.raises(SparseBlockError, match="must be a tensor"):
        sparseblock.verify(exact(case), [torch.zeros(3)])
    with pytest.raises(SparseBlockError, match=r"^verify: frames is a NoneType; it must be tensors"):
        sparseblock.verify(exact(case), None)
    with pytest.raises(SparseBlockError, match=r"^plan: it was unpickled and has no weights yet; first call"):
        sparseblock.verify(pickle.loads(pickle.dumps(exact(case))), [case.frames()])


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Tanh, nn.SiLU, nn.GELU, nn.Mish])
def test_what_rounds_at_the_activation_is_no_difference(activation):
    """Where the argument is small and the value is not, the activation rounds more than what came before it."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.SiLU()
    )
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
        network[0].bias.mul_(1e-3)
    frame = torch.rand(1, 3, 24, 40)
    plan = sparseblock.compile(network.eval(), frame, mode="exact", whole_from=1.0)
    report = sparseblock.verify(plan, [frame, frame + 1e-2 * torch.eye(24, 40)])
    assert report, str(report)


def test_nan_is_no_difference_where_the_dense_network_has_it_and_one_where_it_has_not():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    frame = torch.rand(1, 3, 24, 40)
    broken = frame.clone()
    broken[0, :, 5:9, 7] = torch.nan
    plan = sparseblock.compile(network, frame, mode="exact", whole_from=1.0)
    report = sparseblock.verify(plan, [frame, broken, frame])
    assert report and all(layer.own <= 1 for layer in report.layers), str(report)
    check = plan.network.nodes[-1].output

    def poisoned(state, name, stream, read=verification._value):
        value = read(state, name, stream)
        return value * torch.nan if name == check and state.frames == [2] else value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_value", poisoned)
        assert not sparseblock.verify(plan, [frame, frame])


@pytest.mark.parametrize("transposed", [False, True])
def test_subnormal_weights_that_count_as_zero_are_no_difference(transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    network = nn.Sequential(kind(3, 8, 3, padding=1, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        network[0].weight.mul_(1e-38)
    frame = torch.rand(1, 3, 24, 40) * 1e4
    report = sparseblock.verify(sparseblock.compile(network, frame, mode="exact", whole_from=1.0), [frame])
    assert report, str(report)
