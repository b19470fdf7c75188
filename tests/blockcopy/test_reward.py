from __future__ import annotations

import math

import pytest
import torch
from blockcopy.policy import Outcome
from blockcopy.policy_network import PolicyNetwork
from blockcopy.reward import LEVEL_LIMIT, GainScale, MovingShare, TargetControl, cost_reward, policy_gradient
from blockcopy.trainer import Trainer, Training
from hypothesis import assume, given
from hypothesis import strategies as st

NONE = torch.zeros(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    "share, target, expected", [(0.5, 0.3, -0.04), (0.1, 0.3, 0.04), (0.3, 0.3, 0.0), (1.0, 0.5, -0.25)]
)
def test_cost_is_the_signed_square_of_the_miss(share, target, expected):
    assert math.isclose(cost_reward(share, target), expected)


def test_moving_share():
    share = MovingShare(0.3)
    values = []
    for executed in (1.0, 0.0, 0.5):
        share.update(executed)
        values.append(share.value)
    expected = [0.9 * 0.3 + 0.1, 0.9 * (0.9 * 0.3 + 0.1), 0.9 * 0.9 * (0.9 * 0.3 + 0.1) + 0.05]
    assert all(math.isclose(value, want) for value, want in zip(values, expected, strict=True))


def test_the_gradient_is_that_of_the_loss():
    logits = torch.tensor([[0.3, -1.2, 2.0]], requires_grad=True)
    executed = torch.tensor([[True, False, True]])
    reward = torch.tensor([[0.7, 0.2, -0.4]])
    p = logits.sigmoid()[0]
    loss = (-p[0].log() * 0.7 - (1 - p[1]).log() * -0.2 - p[2].log() * -0.4) / 3
    loss.backward()
    torch.testing.assert_close(policy_gradient(logits.detach(), executed, reward, ~NONE), logits.grad)


def test_blocks_that_the_policy_did_not_choose_teach_nothing():
    executed = torch.tensor([[True, True, False]])
    grad = policy_gradient(torch.zeros(1, 3), executed, torch.ones(1, 3), torch.tensor([[True, False, True]]))
    assert grad[0, 1] == 0
    assert grad[0, 0] != 0 and grad[0, 2] != 0


def test_paper_reward_is_gain_plus_weighted_cost():
    trainer = _trainer("paper")
    trainer.share.value = 0.5
    gain = torch.tensor([[0.1, 0.0, 0.02]])
    executed = torch.tensor([[True, False, True]])
    reward = trainer.reward(gain, torch.full((1, 3), 0.5), Outcome(executed, NONE, lambda: gain))
    torch.testing.assert_close(reward, gain + 5 * -(0.2 * 0.2))


def test_balanced_reward_centres_the_gain_of_executed_blocks():
    trainer = _trainer("balanced")
    gain = torch.tensor([[0.1, 0.0, 0.02]])
    executed = torch.tensor([[True, False, True]])
    probability = torch.tensor([[0.25, 0.5, 0.75]])
    reward = trainer.reward(gain, probability, Outcome(executed, NONE, lambda: gain))
    scaled = gain / 0.06
    baseline = (0.75 * scaled[0, 0] + 0.25 * scaled[0, 2]) / (0.75 + 0.25)
    torch.testing.assert_close(reward, torch.where(executed, scaled - baseline, 0.0))


def _trainer(reward: str) -> Trainer:
    return Trainer(PolicyNetwork(3, 4, 4), 0.3, Training(reward=reward))


def test_the_balanced_gradient_on_the_common_level_is_zero():
    torch.manual_seed(0)
    logits = torch.randn(4, 5)
    executed = torch.rand(4, 5) < logits.sigmoid()
    trainer = _trainer("balanced")
    gain = torch.rand(4, 5) * executed
    none = torch.zeros_like(executed)
    reward = trainer.reward(gain, logits.sigmoid(), Outcome(executed, none, lambda: gain))
    torch.testing.assert_close(policy_gradient(logits, executed, reward, ~none).sum(), torch.zeros(()))


@given(st.floats(0.05, 0.95), st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_the_miss_of_the_target_is_what_the_level_moved(target, shares):
    control = TargetControl(target)
    start = control.level
    for share in shares:
        control.update(share)
        assume(abs(control.level) < LEVEL_LIMIT)  # at its bound the level forgets
    miss = sum(shares) / len(shares) - target
    moved = (start - control.level) / (control.gain * len(shares))
    # Every addition rounds a number below LEVEL_LIMIT.
    assert math.isclose(miss, moved, abs_tol=math.ulp(LEVEL_LIMIT) * len(shares))


def test_the_level_is_bounded():
    control = TargetControl(0.3)
    for _ in range(1000):
        control.update(1.0)
    assert control.level == -LEVEL_LIMIT
    control.update(0.0)
    assert control.level > -LEVEL_LIMIT


def test_gains_of_nothing_stay_zero():
    gains = GainScale()
    gains.update(torch.zeros(3), torch.full((3,), 0.5), torch.ones(3, dtype=torch.bool))
    gains.update(torch.zeros(3), torch.full((3,), 0.5), torch.zeros(3, dtype=torch.bool))
    assert torch.equal(gains.scaled(torch.zeros(3)), torch.zeros(3))
    assert gains.baseline == 0
