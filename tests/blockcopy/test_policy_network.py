from __future__ import annotations

import dataclasses

import pytest
import tasknets
import torch
from bandit import SEGMENTATION, Bandit
from blockcopy import BlockCopy
from blockcopy.information_gain import task_named
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
    return Context(small(), small(), output, torch.rand(rows, cols) < 0.5, age)


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
    logits = network(*inputs(_context(rows, cols, samples, channels), task, 0.5))
    assert torch.equal(logits.sigmoid(), torch.full((rows, cols), 0.5))


def test_no_gradient_flows_into_the_inputs():
    context = _context(2, 3)
    for tensor in (context.frame, context.executed, context.output):
        tensor.requires_grad_()
    pixels, summary = inputs(context, SEGMENTATION, 0.5)
    assert not pixels.requires_grad and not summary.requires_grad


def test_every_input_is_read():
    torch.manual_seed(0)
    context = _context(2, 3)
    network = _random_network()
    base = network(*inputs(context, SEGMENTATION, 0.5))
    other = _context(2, 3)
    for field in ("frame", "executed", "output", "active", "age"):
        changed = dataclasses.replace(context, **{field: getattr(other, field)})
        assert not torch.equal(network(*inputs(changed, SEGMENTATION, 0.5)), base), field


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
        with torch.no_grad():
            moved += (network(*inputs(changed, SEGMENTATION, 0.5)) - network(*inputs(context, SEGMENTATION, 0.5))).abs()
    assert moved.argmax() == 1 * 5 + 2
    neighbours = torch.zeros(5, 5, dtype=torch.bool)
    neighbours[0:3, 1:4] = True
    assert torch.equal(moved > 0, neighbours)


def _random_network() -> PolicyNetwork:
    network = PolicyNetwork(3, 4, summaries(SEGMENTATION))
    for parameter in (network.value.weight, network.summary.weight):
        torch.nn.init.normal_(parameter)
    return network


def test_logits_are_bounded():
    network = _random_network()
    with torch.no_grad():
        network.summary.bias.fill_(1e6)
        assert network(*inputs(_context(2, 2), SEGMENTATION, 0.5)).max() <= LOGIT_BOUND


def test_logits_and_macs_are_those_of_the_convolutions():
    torch.manual_seed(0)
    network = _random_network()
    counted = 0

    def count(module, _, output):
        nonlocal counted
        counted += output[0, 0].numel() * module.weight.numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    pixels, summary = inputs(_context(3, 5), SEGMENTATION, 0.5)
    x = pixels
    for conv in network.body:
        x = torch.relu(conv(x))
    logits = (network.value(x) + network.summary(summary))[0, 0]
    torch.testing.assert_close(network(pixels, summary), LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND))
    assert network.macs(3, 5) == counted


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
    pixels, summary = inputs(bandit.context(), SEGMENTATION, 0.5)
    assert pixels.shape == (1, 3 + 3 + 1 + 4 + 1, 16, 24)
    assert summary.shape == (1, summaries(SEGMENTATION), 2, 3)
