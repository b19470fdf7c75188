from __future__ import annotations

import dataclasses

import pytest
import tasknets
import torch
import torch.nn.functional as F
from bandit import SEGMENTATION, Bandit
from blockcopy import BlockCopy
from blockcopy.information_gain import Task, task_named
from blockcopy.numbers import UNKNOWN
from blockcopy.policy import Context
from blockcopy.policy_network import LOGIT_BOUND, PolicyNetwork, inputs, summaries
from blockcopy.view import PIXELS
from hypothesis import given
from hypothesis import strategies as st


def _context(rows: int, cols: int, samples: int = 2, channels: int = 3, classes: int = 4) -> Context:
    def small():
        return torch.randn(1, channels, rows * PIXELS, cols * PIXELS)

    output = torch.randn(1, classes, rows * samples, cols * samples).log_softmax(1)
    age = torch.randint(0, 60, (rows, cols))
    scale = (0.0,) * channels, (1.0,) * channels
    return Context(small(), small(), output, torch.rand(rows, cols) < 0.5, age, *scale)


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 4),
    st.sampled_from(["segmentation", "restoration"]),
)
def test_one_logit_a_block_on_any_grid_and_all_half_at_first(rows, cols, samples, channels, name):
    task = task_named(name)
    network = PolicyNetwork(channels, 4, summaries(task))
    logits = _logits(network, _context(rows, cols, samples, channels), task)
    assert torch.equal(logits.sigmoid(), torch.full((rows, cols), 0.5))


def _logits(network: PolicyNetwork, context: Context, task: Task = SEGMENTATION) -> torch.Tensor:
    pixels, summary, _ = inputs(context, task, 0.5, 1.0)
    return network(pixels, summary)[0]


def test_every_input_is_read():
    torch.manual_seed(0)
    context = _context(2, 3)
    network = _random_network()
    base = _logits(network, context)
    other = _context(2, 3)
    for field in ("frame", "executed", "output", "active", "age"):
        changed = dataclasses.replace(context, **{field: getattr(other, field)})
        assert not torch.equal(_logits(network, changed), base), field


def test_a_block_is_read_where_it_lies():
    """A change inside of one block moves that block's logit most, and none but its neighbours'."""
    torch.manual_seed(0)
    context = _context(5, 5)
    frame = context.frame.clone()
    frame[..., PIXELS : 2 * PIXELS, 2 * PIXELS : 3 * PIXELS] += 1
    changed = dataclasses.replace(context, frame=frame)
    moved = torch.zeros(5, 5)
    for _ in range(50):
        network = _random_network()
        moved += (_logits(network, changed) - _logits(network, context)).abs()
    assert moved.argmax() == 1 * 5 + 2
    neighbours = torch.zeros(5, 5, dtype=torch.bool)
    neighbours[0:3, 1:4] = True
    assert torch.equal(moved > 0, neighbours)


def _random_network() -> PolicyNetwork:
    network = PolicyNetwork(3, 4, summaries(SEGMENTATION))
    for name in ("value.weight", "summary.weight"):
        network.named[name].normal_()
    return network


def test_logits_are_bounded():
    network = _random_network()
    network.named["summary.bias"].fill_(1e6)
    assert _logits(network, _context(2, 2)).max() <= LOGIT_BOUND


def test_logits_and_macs_are_those_of_the_convolutions():
    torch.manual_seed(0)
    network = _random_network()
    pixels, summary, _ = inputs(_context(3, 5), SEGMENTATION, 0.5, 1.0)
    x, macs = pixels.permute(2, 0, 1)[None], 0
    for layer in range(3):
        weight = network.named[f"body.{layer}.weight"]
        x = F.relu(F.conv2d(x, weight, network.named[f"body.{layer}.bias"], 2, 1))
        macs += x[0, 0].numel() * weight.numel()
    linear = torch.einsum("k,kyx->yx", network.named["value.weight"], x[0])
    linear += torch.einsum("s,syx->yx", network.named["summary.weight"], summary) + network.named["summary.bias"]
    macs += linear.numel() * (x.shape[1] + len(summary))
    torch.testing.assert_close(network(pixels, summary)[0], LOGIT_BOUND * torch.tanh(linear / LOGIT_BOUND))
    assert network.macs(3, 5) == macs


def test_what_was_saved_has_names_and_shapes_and_fits_no_other():
    network, other = _random_network(), _random_network()
    state = network.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.parameters, network.parameters)
    assert state["body.1.weight"].shape == (16, 8, 4, 4)
    with pytest.raises(ValueError, match=r"body.0.weight: \[8, 12, 4, 4\] for \[8, 13, 4, 4\]"):
        PolicyNetwork(3, 5, summaries(SEGMENTATION)).load_state_dict(state)


@pytest.mark.parametrize("block_size", [64, 128])
def test_policy_and_training_take_at_most_3_percent_of_a_light_network(block_size):
    network = tasknets.load("espnet")
    video = BlockCopy(network.model, block_size=block_size, scene_cut=None)
    macs = []
    for _ in range(1 + 2 * video.policy.training.interval):
        video(torch.rand(1, 3, 432, 768))
        macs.append(video.stats.policy_macs)
    assert 0 < sum(macs[1:]) / len(macs[1:]) <= 0.03 * video.plan.macs


def test_the_bandit_is_a_context_like_any_other():
    bandit = Bandit(2, 3, hot=2)
    pixels, summary, _ = inputs(bandit.context(), SEGMENTATION, UNKNOWN, 0.99)
    assert pixels.shape == (16, 24, 3 + 3 + 1 + 4 + 1)
    assert summary.shape == (summaries(SEGMENTATION), 2, 3)
