"""Gates per layer, with those of Skip-Convolutions as examples of what can be built on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from miniatures import miniature
from torch import nn

import sparseblock
from sparseblock import BlockSet, SparseBlockError
from sparseblock.testing import assert_identical, assert_matches, tolerance

GATED = ("first", "second")


class Residual(nn.Module):
    """Two convolutions with norms, the second one's sum added to what the first one made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first, self.norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.second(F.relu(self.norm(self.first(x))))))


def compiled(block: int = 8):
    torch.manual_seed(0)
    network = Residual().eval()
    frame = torch.randn(1, 3, 22, 30)
    return network, frame, sparseblock.compile(network, frame, block, gates=GATED)


@dataclass
class InputNorm:
    """Open where the change of the input sums up to more than `epsilon` over the support: Habibian et al., 2021.

    The reference is the input of the last frame, or, with `last_update`, that which each position was last computed of.
    """

    epsilon: float
    conv: nn.Conv2d
    tile: int = 1
    last_update: bool = False

    def __call__(self, layer: sparseblock.plan.GatedLayer) -> torch.Tensor:
        reference = layer.memory.setdefault("x", torch.zeros_like(layer.x))
        opened = self.decide(layer.x - reference) & layer.active | torch.tensor(layer.first)[:, None, None]
        if self.last_update:
            pixels = opened.repeat_interleave(self.tile, 1).repeat_interleave(self.tile, 2)[:, None]
            layer.memory["x"] = torch.where(pixels[..., : layer.x.shape[2], : layer.x.shape[3]], layer.x, reference)
        else:
            layer.memory["x"] = layer.x.clone()
        return opened

    def decide(self, change: torch.Tensor) -> torch.Tensor:
        c = self.conv
        support = torch.ones(1, change.shape[1], *c.kernel_size)
        norm = F.conv2d(change.abs(), support, None, c.stride, c.padding, c.dilation)
        return F.max_pool2d((norm > self.epsilon).float(), self.tile, ceil_mode=True)[:, 0].bool()


@dataclass
class OutputNorm(InputNorm):
    """The same, times the L1 norm of the weights, which bounds the change of the output."""

    def decide(self, change: torch.Tensor) -> torch.Tensor:
        return InputNorm(self.epsilon / float(self.conv.weight.detach().abs().sum()), self.conv, self.tile).decide(
            change
        )


@dataclass
class Gumbel(InputNorm):
    """A convolution with one output channel decides, as at inference."""

    def decide(self, change: torch.Tensor) -> torch.Tensor:
        c = self.conv
        weight = torch.randn(1, *c.weight.shape[1:], generator=torch.Generator().manual_seed(3))
        logit = F.conv2d(change, weight, None, c.stride, c.padding, c.dilation)
        return F.max_pool2d((logit.sigmoid() > 0.5).float(), self.tile, ceil_mode=True)[:, 0].bool()


class Recompute:
    """What the paper's recompute form should give: z = W x + b at open positions, kept elsewhere; all else is dense."""

    def __init__(self, network: Residual, gates: dict) -> None:
        self.network, self.gates, self.memory, self.z = network.double(), gates, {}, {}

    def gated(self, name: str, conv: nn.Conv2d, x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        z, gate = conv(x), self.gates[name]
        first = (name not in self.z,)
        rows = F.max_pool2d(active[:, None].float(), gate.tile, ceil_mode=True)[:, 0].bool()
        layer = sparseblock.plan.GatedLayer(name, x.float(), z.float(), rows, first, self.memory.setdefault(name, {}))
        opened = (gate(layer) & rows).repeat_interleave(gate.tile, 1).repeat_interleave(gate.tile, 2)
        opened = opened[:, None, : z.shape[2], : z.shape[3]]
        self.z[name] = z if first[0] else torch.where(opened, z, self.z[name])
        return self.z[name]

    def __call__(self, frame: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        n = self.network
        x = n.stem(frame.double())
        hidden = F.relu(n.norm(self.gated("first", n.first, x, active)))
        return n.head(F.relu(x + self.gated("second", n.second, hidden, active)))


@pytest.mark.parametrize("last_update", [False, True])
@pytest.mark.parametrize("tile", [1, 2, 4])
@pytest.mark.parametrize(("kind", "epsilon"), [(InputNorm, 3.0), (OutputNorm, 100.0), (Gumbel, 0.0)])
def test_skip_convolutions(kind, epsilon, tile, last_update):
    network, frame, plan = compiled()
    modules = dict(network.named_modules())
    gates = {name: kind(epsilon, modules[name], tile, last_update) for name in GATED}
    state = plan.new_state()
    reference = Recompute(type(network)().eval(), gates)
    reference.network.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(1)
    everything = torch.ones(1, 22, 30, dtype=torch.bool)
    shares = []
    with torch.no_grad():
        for step in range(5):
            out = plan(frame, None, state, gates)
            expected = reference(frame, everything)
            terms = sum(m.weight[0].numel() for m in modules.values() if isinstance(m, nn.Conv2d))
            assert_matches(out, expected, tolerance(terms, expected))
            if step:
                shares += [float(mask.float().mean()) for mask in state.open.values()]
            frame = frame + 0.02 * torch.randn(frame.shape, generator=generator)
            frame[..., 3:9, 5 + step : 11 + step] += 1
    assert any(0 < share < 1 for share in shares)


def test_a_layer_runs_where_gate_and_grid_say_so():
    _, frame, plan = compiled(block=8)
    state = plan.new_state()
    plan(frame, None, state)
    before = state[plan._gated["first"].output].clone()
    blocks = torch.zeros(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    blocks[0, 0, 1] = True
    gate = torch.zeros(1, 6, 8, dtype=torch.bool)
    gate[0, 1, 2:5] = True  # rows 4..8, columns 8..20; the block is rows 0..8, columns 8..16
    plan(frame + 1, blocks, state, {"first": BlockSet.from_mask(gate, 4)})
    after = state[plan._gated["first"].output]
    changed = torch.zeros(1, 1, 22, 30, dtype=torch.bool)
    changed[..., 4:8, 8:16] = True
    assert_identical(after, before, ~changed.expand_as(after))
    assert (after != before)[changed.expand_as(after)].any()
    assert state.open["first"].sum() == 2


def test_gates_that_are_open_change_nothing():
    network, frame, plan = compiled()
    plain = sparseblock.compile(network, frame, 8)
    states = plan.new_state(), plan.new_state()

    class Open:
        tile = 2

        def __call__(self, layer):
            return torch.ones_like(layer.active)

    for _ in range(2):
        frame = torch.randn(1, 3, 22, 30)
        out = plan(frame, None, states[0], dict.fromkeys(GATED, Open()))
        assert_identical(out, plan(frame, None, states[1]))
        with torch.no_grad():
            expected = network.double()(frame.double())
        network.float()
        assert_matches(out, expected, tolerance(6 * 9 * 3, expected))
    assert plain.report().macs == plan.report().macs
    assert [node.name for node in plan.report().nodes if node.reason == "takes a gate"] == list(GATED)


def test_a_gate_sees_each_stream_from_its_first_frame_on():
    _, frame, plan = compiled()
    seen = []

    class Shut:
        tile = 8

        def __call__(self, layer):
            seen.append(layer.first)
            assert layer.x.shape == (2, 6, 22, 30) and layer.out.shape == (2, 6, 22, 30)
            layer.memory["calls"] = layer.memory.get("calls", 0) + 1
            return torch.zeros_like(layer.active)

    state, gates = plan.new_state(2), {"second": Shut()}
    frames = torch.cat([frame, frame + 1])
    whole = plan(frames, None, plan.new_state(2))
    assert_identical(plan(frames, None, state, gates), whole)
    plan(frames * 2, None, state, gates)
    state.reset(1)
    out = plan(frames, None, state, gates)
    assert_identical(out[1:], whole[1:])
    assert seen == [(True, True), (False, False), (False, True)]
    assert state.gates["second"]["calls"] == 3


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"head": None}, "gates has 'head', but this plan has gates for 'first', 'second'"),
        (
            {"first": BlockSet.from_mask(torch.ones(1, 8, 10, dtype=torch.bool), 3)},
            "tiles of 3 px; they must divide the 8",
        ),
        ({"first": None}, "gate of 'first' is a NoneType; it must be a BlockSet of the layer's output, or a function"),
        ({"first": torch.ones(1, 6, 8, dtype=torch.bool)}, "gate of 'first' is a Tensor; it must be a BlockSet"),
        (["first"], "plan: gates is a list; it must be a dict of gates by layer"),
        ({"first": BlockSet.from_mask(torch.ones(1, 5, 8, dtype=torch.bool), 4)}, "it must be bool [1, 6, 8]"),
        ({"first": BlockSet.from_mask(torch.ones(1, 6, 8, dtype=torch.bool), (4, 8))}, "gives a BlockSet"),
        (
            {"first": BlockSet.all(1, 6, 8, 4, "meta")},
            "gives torch.bool [1, 6, 8] on meta; it must be bool [1, 6, 8] [n, rows, cols] on cpu",
        ),
    ],
)
def test_gates_that_do_not_fit(gates, message):
    _, frame, plan = compiled()
    with pytest.raises(SparseBlockError, match=re.escape(message)):
        plan(frame, None, plan.new_state(), gates)


@pytest.mark.parametrize(
    ("gate", "error"),
    [
        (Mock(tile=4, side_effect=KeyboardInterrupt), KeyboardInterrupt),
        (Mock(tile=4, return_value=torch.ones(1, 1, 1, dtype=torch.bool)), SparseBlockError),
    ],
)
def test_after_a_frame_that_broke_off_streams_begin_anew(gate, error):
    """The layers before the gate have taken it up: masked frames would go on from a mixture."""
    _, frame, plan = compiled()
    frames = torch.randn(2, 2, *frame.shape[1:])
    state = plan.new_state(2)
    plan(frames[0], None, state)
    part = torch.zeros(2, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    part[:, 0, 0] = True
    with pytest.raises(error):
        plan(frames[1], part, state, {"second": gate})
    assert state.frames == [0, 0]
    with pytest.raises(SparseBlockError, match="first frame"):
        plan(frames[1], part, state)
    assert_identical(plan(frames[1], None, state), plan(frames[1], None, plan.new_state(2)))


def test_names_of_gates_come_in_any_iterable():
    case = miniature("vdsr")
    plan = sparseblock.compile(case.network, case.frames(), 16, gates=(name for name in ["body.0"]))
    state = plan.new_state()
    plan(case.frames(), None, state, gates={"body.0": BlockSet.all(1, plan.grid.rows, plan.grid.cols, 16)})
    assert state.open["body.0"].all()


def test_compile_refuses_what_cannot_have_a_gate():
    case = miniature("vdsr")
    with pytest.raises(SparseBlockError, match=r"'body\.1', which is 0 convolutions"):
        sparseblock.compile(case.network, case.frames(), 16, gates=["body.1"])
    with pytest.raises(SparseBlockError, match='in mode "exact" it is a dict, a ResidualGate for each name'):
        sparseblock.compile(case.network, case.frames(), mode="exact", gates=["body.0"])
    strided = nn.Sequential(nn.Conv2d(1, 2, 3, 3)).eval()
    with pytest.raises(SparseBlockError, match="which runs dense"):
        sparseblock.compile(strided, torch.rand(1, 1, 12, 12), 8, gates=["0"])
