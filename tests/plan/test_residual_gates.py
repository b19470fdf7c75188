"""Residual gates of exact plans, by their definition: what a convolution holds, since when, and what it has missed.

Weights and frames are small integers, so every sum is exact in float32: decisions and values are compared without a
tolerance.
"""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan import ResidualGate

WINDOWS = (
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
    {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1)},
    {"kernel_size": 5, "stride": 2, "padding": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "padding_mode": "circular"},
)


def integers(generator: torch.Generator, low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=generator).float()


def layer(seed: int, window: dict, transposed: bool = False) -> nn.Module:
    """A network of one convolution, called "0"."""
    conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, **window)
    generator = torch.Generator().manual_seed(seed)
    for parameter in conv.parameters():
        parameter.data = integers(generator, -1, 2, *parameter.shape)
    return nn.Sequential(conv).eval()


def frames(seed: int, streams: int, count: int, height: int = 9, width: int = 11) -> list[torch.Tensor]:
    """Of which a few pixels change by little, back and forth."""
    generator = torch.Generator().manual_seed(seed)
    shown = [integers(generator, 0, 3, streams, 4, height, width)]
    for _ in range(count - 1):
        changed = torch.rand(streams, 1, height, width, generator=generator) < 0.1
        shown.append(shown[-1] + changed * integers(generator, -1, 2, streams, 4, height, width))
    return shown


def reads(network: nn.Module, height: int, width: int) -> torch.Tensor:
    """bool [h_out * w_out, h * w]: which pixel reads which, by where a change of the input arrives."""
    (probe,) = copy.deepcopy(network).double()
    probe.weight.data.fill_(1.0)
    images = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    with torch.no_grad():
        arrived = probe(images.expand(-1, 4, -1, -1)) - probe.bias.view(1, -1, 1, 1)
    return (arrived[:, 0].flatten(1) != 0).T


def opened(plan, state) -> torch.Tensor:
    """bool [n, h, w]: what the convolution computed in the last frame."""
    (name,) = plan.residual_gates
    return state.pixels[name].bool()


@settings(max_examples=40)
@given(
    st.sampled_from(WINDOWS),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 1, 3, 8]),
    st.sampled_from(["last_frame", "last_update"]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_a_gate_opens_as_it_is_defined(window, tile, threshold, reference, transposed, seed):
    transposed = transposed and "padding_mode" not in window
    network, shown = layer(seed, window, transposed), frames(seed, 2, 6)
    gate = ResidualGate(threshold, reference=reference, tile=tile)
    plan = sparseblock.compile(network, shown[0], mode="exact", gates={"0": gate})
    state, read = plan.new_state(2), reads(network, 9, 11).double()

    def over_support(change: torch.Tensor) -> torch.Tensor:
        """Sums of magnitudes, [n, h, w]."""
        return (change.abs().sum(1).flatten(1).double() @ read.T).view(2, *size)

    def in_tiles(open_pixels: torch.Tensor) -> torch.Tensor:
        tiles = F.max_pool2d(open_pixels.double(), tile, ceil_mode=True) > 0
        return tiles.repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, : size[0], : size[1]]

    with torch.no_grad():
        size = network(shown[0]).shape[2:]
    held = since = None  # the output, and the frame that each of its pixels was computed of
    for number, frame in enumerate(shown):
        out = plan(frame, None, state)
        with torch.no_grad():
            whole = network(frame)
        if held is None:
            held, since = whole, torch.zeros(2, *whole.shape[2:], dtype=torch.long)
            continue
        now = opened(plan, state)
        if torch.equal(frame, shown[number - 1]):
            now = torch.zeros_like(now)  # nothing was decided
        norms = [over_support(frame - then) for then in shown[:number]]  # of the change since each frame
        steps = [over_support(b - a) for a, b in itertools.pairwise(shown[: number + 1])]
        if reference == "last_frame":
            assert torch.equal(now, in_tiles(norms[-1] > threshold))
        else:
            change = torch.stack(norms).gather(0, since[None])[0]
            assert (now | ~in_tiles(change > threshold)).all(), "a change over the threshold was missed"
            path = torch.stack([torch.stack(steps[first:]).sum(0) for first in range(number)]).gather(0, since[None])[0]
            assert (~now | in_tiles(path > threshold)).all(), "opened for less than all steps since the update"
        held, since = torch.where(now[:, None], whole, held), torch.where(now, number, since)
        assert torch.equal(out, held)


def test_what_goes_back_before_the_gate_opens_is_forgotten():
    """Of a window of one pixel nothing is carried: the sum is that of the change since the last update."""
    network = layer(3, {"kernel_size": 1})
    frame = torch.zeros(1, 4, 4, 4)
    plan = sparseblock.compile(network, frame, mode="exact", gates={"0": ResidualGate(2.0, reference="last_update")})
    state = plan.new_state()
    plan(frame, None, state)
    for value, opens in ((1.0, False), (0.0, False), (2.0, False), (3.0, True), (2.0, False), (0.0, True)):
        frame = frame.clone()
        frame[0, 1, 2, 3] = value
        plan(frame, None, state)
        assert bool(opened(plan, state)[0, 2, 3]) is opens, value


def test_slow_changes_are_lost_between_frames_and_kept_since_the_update():
    """50 steps of 0.002 (Skip-Convolutions' code loses them)."""
    network, last = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)).eval(), {}
    network[0].weight.data.fill_(1.0)
    for reference in ("last_frame", "last_update"):
        frame = torch.zeros(1, 1, 2, 2)
        gates = {"0": ResidualGate(0.01, reference=reference)}
        plan = sparseblock.compile(network, frame, mode="exact", gates=gates)
        state = plan.new_state()
        for step in range(51):
            last[reference] = float(plan(frame + 0.002 * step, None, state)[0, 0, 0, 0])
    assert last["last_frame"] == 0.0 and abs(last["last_update"] - 0.1) <= 0.0101


@settings(max_examples=20)
@given(st.sampled_from(WINDOWS[:6]), st.sampled_from([1, 3]), st.integers(0, 2**16))
def test_a_learned_gate_is_a_convolution_of_the_residual(window, tile, seed):
    network, shown = layer(seed, window), frames(seed, 2, 4)
    generator = torch.Generator().manual_seed(seed + 1)
    weight, bias = integers(generator, -1, 2, 1, 4, *network[0].kernel_size), float(integers(generator, -1, 2))
    gate = ResidualGate(weight=weight, bias=bias, tile=tile)
    plan = sparseblock.compile(network, shown[0], mode="exact", gates={"0": gate})
    state, conv, read = plan.new_state(2), network[0], reads(network, 9, 11).double()
    plan(shown[0], None, state)
    for before, frame in itertools.pairwise(shown):
        residual = frame - before
        plan(frame, None, state)
        logit = F.conv2d(residual, weight, torch.tensor([bias]), conv.stride, conv.padding, conv.dilation)
        changed = (residual.abs().sum(1).flatten(1).double() @ read.T).view_as(logit) > 0
        tiles = F.max_pool2d(((logit > 0) & changed).float(), tile, ceil_mode=True)[:, 0] > 0
        expected = tiles.repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, : logit.shape[2], : logit.shape[3]]
        assert torch.equal(opened(plan, state), expected)


def test_streams_have_gates_of_their_own_that_begin_anew_with_them():
    network, shown = layer(1, WINDOWS[1]), frames(1, 2, 5)
    plan = sparseblock.compile(network, shown[0], mode="exact", gates={"0": ResidualGate(1.0, reference="last_update")})
    both, first = plan.new_state(2), plan.new_state(1)
    for frame in shown[:3]:
        out = plan(frame, None, both)
        assert torch.equal(out[:1], plan(frame[:1], None, first))
    both.reset(1)
    out = plan(shown[3], None, both)
    assert opened(plan, both)[1].all() and not opened(plan, both)[0].all()
    assert torch.equal(out[1:], network(shown[3][1:])) and torch.equal(out[:1], plan(shown[3][:1], None, first))


def test_a_state_with_gates_is_saved_and_forked():
    network, shown = layer(2, WINDOWS[4]), frames(2, 1, 6)
    plan = sparseblock.compile(network, shown[0], mode="exact", gates={"0": ResidualGate(2.0, reference="last_update")})
    state = plan.new_state()
    for frame in shown[:3]:
        plan(frame, None, state)
    saved, fork = state.state_dict(), state.fork()
    expected = [plan(frame, None, state).clone() for frame in shown[3:]]
    loaded = plan.new_state()
    loaded.load_state_dict(saved)
    for other in (fork, loaded):
        for frame, out in zip(shown[3:], expected, strict=True):
            assert torch.equal(plan(frame, None, other), out)
    assert state.nbytes > sparseblock.compile(network, shown[0], mode="exact", whole_from=1.0).new_state().nbytes
    del saved["seen"][next(iter(saved["seen"]))]["carried"]
    with pytest.raises(SparseBlockError, match="seen is of other gates"):
        loaded.load_state_dict(saved)


def test_a_pickled_plan_keeps_its_gates():
    network, shown = layer(7, WINDOWS[2]), frames(7, 1, 4)
    learned = ResidualGate(weight=torch.ones(1, 4, 3, 3), bias=-1.0)
    for gate in (ResidualGate(2.0, reference="last_update", tile=2), learned):
        plan = sparseblock.compile(network, shown[0], mode="exact", gates={"0": gate})
        loaded = pickle.loads(pickle.dumps(plan)).with_weights(network)
        states = plan.new_state(), loaded.new_state()
        for frame in shown:
            assert torch.equal(plan(frame, None, states[0]), loaded(frame, None, states[1]))
        assert torch.equal(opened(plan, states[0]), opened(loaded, states[1]))
        assert loaded.report().nodes == plan.report().nodes


def test_a_frame_of_nan_opens_and_is_gone_with_the_next():
    network, (frame, _) = layer(5, WINDOWS[1]), frames(5, 1, 2)
    plan = sparseblock.compile(network, frame, mode="exact", gates={"0": ResidualGate(1e6, reference="last_update")})
    state = plan.new_state()
    plan(frame, None, state)
    broken = frame.clone()
    broken[0, 0, 4, 4] = math.nan
    assert plan(broken, None, state).isnan().any()
    assert torch.equal(plan(frame, None, state), network(frame))


def test_every_call_of_a_shared_convolution_has_the_gate():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x):
            x = self.conv(x).relu()
            return self.conv(self.pool(x)) + 0

    frame = torch.rand(1, 3, 8, 8)
    plan = sparseblock.compile(Shared().eval(), frame, mode="exact", gates={"conv": ResidualGate(math.inf)})
    assert len(plan.residual_gates) == 2
    state = plan.new_state()
    first = plan(frame, None, state).clone()
    assert torch.equal(plan(frame + 1, None, state), first)
    rows = [row for row in plan.report().nodes if row.name == "conv"]
    assert [row.reason for row in rows] == ["gate: residual over inf, since the last frame, tiles of 1 px"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, "threshold is -1.0; it must be a number of at least 0"),
        ({"threshold": math.nan}, "threshold is nan; it must be a number of at least 0"),
        ({"bias": math.nan}, "bias is nan; it must be a number"),
        ({"threshold": "high"}, "threshold is 'high'"),
        ({"reference": "frame"}, 'reference is \'frame\'; it must be "last_frame" or "last_update"'),
        ({"tile": 0}, "tile is 0; it must be a positive number of pixels"),
        ({"weight": torch.zeros(2, 4, 3, 3)}, "weight is torch.float32 [2, 4, 3, 3]; it must be float32 [1, c, r, s]"),
        ({"weight": [1.0]}, "weight is list"),
        ({"weight": torch.zeros(1, 4, 3, 3), "reference": "last_update"}, 'such a gate has "last_frame" alone'),
    ],
)
def test_gates_that_are_none(options, message):
    with pytest.raises(SparseBlockError, match=re.escape(message)):
        ResidualGate(**options)


def test_convolutions_of_one_module_with_weights_of_their_own_have_no_gate():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.rand(5, 3, 3, 3)), nn.Parameter(torch.rand(2, 5, 1, 1))

        def forward(self, x):
            return F.conv2d(F.conv2d(x, self.a), self.b)

    network = nn.Sequential(Two()).eval()
    with pytest.raises(SparseBlockError, match=r"'0', which is 2 convolutions of different weights"):
        sparseblock.compile(network, torch.rand(1, 3, 8, 8), mode="exact", gates={"0": ResidualGate(1.0)})


def test_compile_refuses_gates_that_do_not_fit():
    network, frame = layer(0, WINDOWS[1]), torch.rand(1, 4, 8, 8)
    padded = layer(0, WINDOWS[6])
    learned = ResidualGate(weight=torch.zeros(1, 3, 3, 3))
    for model, options, message in (
        (network, {"gates": {"1": ResidualGate()}}, "gates has '1', which is no convolution"),
        (network, {"gates": {"0": "open"}}, "gate of '0' is a str; an exact plan takes a ResidualGate"),
        (network, {"gates": {"0": learned}}, "has a weight [1, 3, 3, 3] for a convolution padded with zeros whose"),
        (padded, {"gates": {"0": ResidualGate(weight=torch.zeros(1, 4, 3, 3))}}, "padded with reflect"),
        (network, {"gates": ["0"]}, 'in mode "exact" it is a dict'),
        (network, {"gates": {"0": ResidualGate()}, "whole_from": 0.5}, "whole_from is 0.5 with gates"),
        (network, {"gates": {"0": ResidualGate()}, "mode": "grid"}, 'which is for mode "exact"'),
    ):
        with pytest.raises(SparseBlockError, match=re.escape(message)):
            sparseblock.compile(model, frame, **{"mode": "exact", **options})
    plan = sparseblock.compile(network, frame, mode="exact", gates={"0": ResidualGate()})
    with pytest.raises(SparseBlockError, match="gates are given, but those of an exact plan are its own"):
        plan(frame, None, plan.new_state(), gates={"0": ResidualGate()})
    with pytest.raises(SparseBlockError, match="verify: plan has residual gates"):
        sparseblock.verify(plan, [frame])
    with pytest.raises(SparseBlockError, match="calibrate: plan has residual gates"):
        sparseblock.calibrate(plan, [frame, frame], 0.1)
