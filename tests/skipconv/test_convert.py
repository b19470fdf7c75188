"""Skip-Convolutions on the kernels give what their definition in PyTorch gives, bit by bit, on integers."""

from __future__ import annotations

import re

import pytest
import skipconv
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integers import Twice, clip
from torch import nn

from sparseblock import SparseBlockError

WINDOWS = (
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (1, 3), "stride": (2, 1)},
    {"kernel_size": 5, "stride": 2, "padding": 1},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 2, "stride": 3},
)
GATES = (
    skipconv.InputNorm(3.0, "last_frame"),
    skipconv.InputNorm(3.0),
    skipconv.OutputNorm(60.0, "last_frame"),
    skipconv.OutputNorm(60.0),
    skipconv.Gumbel(),
)


def gated(seed: int, gate, structure: int, window: dict, **options) -> skipconv.Gated:
    network = skipconv.Gated(Twice(seed, **window), gate, structure, **options).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.phi.parameters():
        parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()
    return network


@settings(max_examples=30)
@given(st.sampled_from(GATES), st.sampled_from([1, 2, 4]), st.sampled_from(WINDOWS), st.integers(0, 2**16))
def test_the_kernels_give_what_the_definition_gives(gate, structure, window, seed):
    frames, network = clip(seed, 6, 2, 22, 31), gated(seed, gate, structure, window)
    net = skipconv.convert(network, frames[0])
    with torch.no_grad():
        for number, frame in enumerate(frames):
            assert torch.equal(net(frame), network(frame)), f"frame {number}"
            assert set(net.stats.opened) == set(network.layers)


def test_an_unmodified_network_takes_a_gate():
    network, frames = Twice(3, **WINDOWS[0]).eval(), clip(3, 4, 1, 24, 32)
    gate = skipconv.InputNorm(2.0)
    net, definition = skipconv.convert(network, frames[0], gate, 2), skipconv.Gated(network, gate, 2).eval()
    shares = []
    with torch.no_grad():
        for frame in frames:
            assert torch.equal(net(frame), definition(frame))
            shares.append(net.stats.share)
    assert shares[0] == 1 and 0 < shares[1] < 1 and shares[3] == 0  # the last frame is the one before
    assert "0.0 % of dense" in str(net.stats)


class Between(nn.Module):
    """Two convolutions with something that runs on torch between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3), between
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


@pytest.mark.parametrize("gate", GATES[:4])
@pytest.mark.parametrize(
    "between", [lambda x: x.flip(-1), lambda x: x[:, :, 2:-3, 1:-4], lambda x: x[..., ::2, ::2], lambda x: x.roll(3, 2)]
)
def test_what_runs_on_torch_between_gates(gate, between):
    network, frames = Between(between).eval(), clip(8, 6, 2, 21, 26)
    net, definition = skipconv.convert(network, frames[0], gate), skipconv.Gated(network, gate).eval()
    with torch.no_grad():
        for frame in frames:
            assert torch.equal(net(frame), definition(frame))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("gate", GATES[:4])
def test_what_is_not_finite_opens_and_goes_as_it_came(gate, value):
    network, frames = Twice(9, **WINDOWS[0]).eval(), clip(9, 6, 1, 20, 20)
    frames[1][0, 0, 5, 5] = frames[2][0, 0, 5, 5] = value
    net, definition = skipconv.convert(network, frames[0], gate), skipconv.Gated(network, gate).eval()
    with torch.no_grad():
        for frame in frames:
            assert torch.equal(net(frame).isfinite(), definition(frame).isfinite())
    assert net.state[net.plan.graph.outputs[0].name].isfinite().all()


def test_a_net_made_in_inference_mode_runs_outside_of_it():
    network, frames = Twice(10, **WINDOWS[0]).eval(), clip(10, 3, 1, 20, 20)
    with torch.inference_mode():
        net = skipconv.convert(network, frames[0], skipconv.InputNorm(2.0))
        net(frames[0])
    net(frames[1])
    assert torch.equal(net.plan(frames[2], None, net.state.fork()), net(frames[2]))


def test_a_structure_larger_than_the_map_is_one_block():
    network, frames = Twice(11, **WINDOWS[0]).eval(), clip(11, 3, 1, 20, 20)
    nets = [skipconv.convert(network, frames[0], skipconv.InputNorm(2.0), size) for size in (20, 2**40)]
    definition = skipconv.Gated(network, skipconv.InputNorm(2.0), 2**40).eval()
    with torch.no_grad():
        for frame in frames:
            out = definition(frame)
            assert all(torch.equal(net(frame), out) for net in nets)


def test_epsilon_zero_is_the_dense_network():
    network, frames = Twice(4, **WINDOWS[1]).eval(), clip(4, 5, 2, 20, 20)
    for gate in (skipconv.InputNorm(0.0), skipconv.OutputNorm(0.0, "last_frame")):
        net = skipconv.convert(network, frames[0], gate, structure=2)
        with torch.no_grad():
            for frame in frames:
                assert torch.equal(net(frame), network(frame))


def test_only_the_layers_that_are_named_have_gates():
    network, frames = Twice(5, **WINDOWS[0]).eval(), clip(5, 2, 1, 20, 20)
    net = skipconv.convert(network, frames[0], skipconv.InputNorm(1e9), layers=["wide"])
    net(frames[0])
    net(frames[1])
    assert net.stats.opened == {"wide": 0.0} and net.stats.macs > 0


def test_streams_refresh_and_begin_anew_by_themselves():
    network, frames = Twice(6, **WINDOWS[0]).eval(), clip(6, 7, 2, 20, 20)
    net = skipconv.convert(network, frames[0], skipconv.InputNorm(1e9), refresh_every=3)
    with torch.no_grad():
        dense = [network(frame) for frame in frames]
        for number, frame in enumerate(frames):
            if number == 2:
                net.reset(1)
            out = net(frame)
            for stream, last in enumerate([number // 3 * 3, 0 if number < 2 else 2 + (number - 2) // 3 * 3]):
                assert torch.equal(out[stream], dense[last][stream]), (number, stream)


def test_what_convert_refuses():
    network, frame = Twice(0, **WINDOWS[0]).eval(), torch.zeros(1, 3, 20, 20)
    norm = skipconv.InputNorm(1.0)
    for arguments, message in (
        ({"gate": None}, "gate is None; it must be a skipconv.InputNorm, OutputNorm or Gumbel"),
        ({"gate": skipconv.Gumbel()}, "gate is a Gumbel, which is learned; train it with skipconv.Gated"),
        ({"gate": norm, "structure": 0}, "structure is 0; it must be pixels of a block"),
        ({"gate": norm, "layers": "wide"}, "layers is 'wide'; it must be a list of names: layers=['wide']"),
        ({"gate": norm, "layers": ["smaller"]}, "layers has 'smaller', which is no Conv2d of the model"),
        ({"gate": norm, "layers": []}, "layers is empty, so there is nothing to gate"),
        ({"gate": norm, "refresh_every": 0}, "refresh_every is 0; it must be a number of frames, or None"),
    ):
        with pytest.raises(SparseBlockError, match=re.escape(message)):
            skipconv.convert(network, frame, **arguments)
    network.unused = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(SparseBlockError, match="layers has 'unused', on which no output depends"):
        skipconv.convert(network, frame, norm, layers=["wide", "unused"])
    with pytest.raises(SparseBlockError, match="given with a Gated; it has its own"):
        skipconv.convert(skipconv.Gated(network, norm).eval(), frame, norm)
    with pytest.raises(SparseBlockError, match="form is 'accumulate'; plans compute \"recompute\" alone"):
        first = skipconv.InputNorm(1.0, "last_frame")
        skipconv.convert(skipconv.Gated(network, first, form="accumulate").eval(), frame)
    with pytest.raises(SparseBlockError, match="no frame has been run since"):
        _ = skipconv.convert(network, frame, norm).stats


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: skipconv.InputNorm(-1.0), "InputNorm: epsilon is -1.0; it must be a finite number of at least 0"),
        (lambda: skipconv.OutputNorm(float("nan")), "OutputNorm: epsilon is nan"),
        (lambda: skipconv.Gumbel(temperature=0), "Gumbel: temperature is 0; it must be a finite number above 0"),
        (lambda: skipconv.InputNorm(1.0, "frame"), 'reference is \'frame\'; it must be "last_frame" or "last_update"'),
    ],
)
def test_gates_that_are_none(make, message):
    with pytest.raises(SparseBlockError, match=re.escape(message)):
        make()
