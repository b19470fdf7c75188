"""The policy learns: on streams whose best policy is known, within the frames of a short clip."""

from __future__ import annotations

import copy

import pytest
import torch
from bandit import SEGMENTATION, Bandit
from blockcopy import trainer as trainer_module
from blockcopy.information_gain import log_probabilities
from blockcopy.policies import BlockCopyPolicy
from blockcopy.policy_network import PolicyNetwork
from blockcopy.reward import TargetControl
from blockcopy.trainer import Training

from sparseblock import SparseBlockError

GRID = (4, 6)
HOT = 6
TARGET = HOT / 24


def _policy(target: float = TARGET, seed: int = 0, **training) -> BlockCopyPolicy:
    return BlockCopyPolicy(target, seed, SEGMENTATION, Training(**training))


def _caught(policy: BlockCopyPolicy, bandit: Bandit, frames: int) -> float:
    """Of the gain that the target affords, the share that the policy gets, over the last quarter of the frames."""
    played = bandit.play(policy, frames)[-frames // 4 :]
    return (played & bandit.hot).sum().item() / (len(played) * bandit.hot.sum().item())


def _check_learns(by: str, frames: int, seed: int, **training) -> None:
    learned = _caught(_policy(seed=seed, **training), Bandit(*GRID, HOT, by=by, seed=seed), frames)
    by_chance = TARGET
    assert learned > (1 + 2 * by_chance) / 3, f"caught {learned:.2f}; chance is {by_chance:.2f}"


@pytest.mark.parametrize("seed", range(3))
def test_blocks_that_change_are_found_within_a_short_clip(seed):
    _check_learns("change", 240, seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_body_learns_what_only_the_picture_tells(seed):
    _check_learns("appearance", 1200, seed, lr=1e-3, summary_lr=1e-3)


def test_the_papers_reward_learns_too():
    _check_learns("change", 240, 0, reward="paper", gamma=0.5)


@pytest.mark.parametrize(
    "by, frames, training", [("change", 240, {}), ("appearance", 1200, {"lr": 1e-3, "summary_lr": 1e-3})]
)
def test_a_reward_of_the_wrong_sign_is_caught(monkeypatch, by, frames, training):
    right = trainer_module.policy_gradient
    monkeypatch.setattr(trainer_module, "policy_gradient", lambda logits, a, reward, c: right(logits, a, -reward, c))
    with pytest.raises(AssertionError, match="caught"):
        _check_learns(by, frames, 0, **training)


def test_a_network_that_is_never_updated_is_caught(monkeypatch):
    monkeypatch.setattr(trainer_module.RMSprop, "step", lambda self, gradient: None)
    with pytest.raises(AssertionError, match="caught"):
        _check_learns("change", 240, 0)


def test_the_optimizer_is_torchs():
    torch.manual_seed(0)
    training = Training(lr=0.01, summary_lr=0.1, weight_decay=0.02)
    network = PolicyNetwork(3, 4, 4)
    own = trainer_module.RMSprop(network, training)
    leaf = network.parameters.clone()
    body, summary = leaf.split((len(leaf) - 5, 5))
    groups = [{"params": [body]}, {"params": [summary], "lr": training.summary_lr}]
    theirs = torch.optim.RMSprop(groups, lr=training.lr, weight_decay=training.weight_decay)
    for _ in range(3):
        gradient = torch.randn_like(leaf)
        body.grad, summary.grad = gradient.clone().split((len(body), len(summary)))
        theirs.step()
        own.step(gradient)
    torch.testing.assert_close(network.parameters, leaf)


def _check_target(target: float, hot: int, seed: int, **training) -> None:
    """The share from the first frame on is within 2 points of the target, learning and all."""
    share = Bandit(*GRID, hot, seed=seed).play(_policy(target, seed, **training), 400).float().mean().item()
    assert abs(share - target) < 0.02, f"executed {share:.3f} of a target of {target}"


@pytest.mark.parametrize("target", [0.05, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("hot", [0, 3, 24])
def test_the_target_is_met(target, hot):
    _check_target(target, hot, seed=0)


def test_the_papers_reward_overshoots(monkeypatch):
    """Why there is another: gains are never negative, so R_c has to be, and it is so only above the target."""
    with pytest.raises(AssertionError, match=r"executed 0\.3[3-9]"):
        _check_target(0.3, 24, seed=0, reward="paper")


def test_a_level_of_the_wrong_sign_is_caught(monkeypatch):
    right = TargetControl.update
    monkeypatch.setattr(TargetControl, "update", lambda self, share: right(self, 2 * self.target - share))
    with pytest.raises(AssertionError, match="executed"):
        _check_target(0.3, 3, seed=0)


def test_an_update_every_interval():
    policy, bandit = _policy(interval=3), Bandit(*GRID, HOT)
    before = None
    changed = []
    for _ in range(9):
        bandit.play(policy, 1)
        after = copy.deepcopy(policy.trainer.network.state_dict())
        changed.append(before is not None and any(not torch.equal(after[name], before[name]) for name in after))
        before = after
    assert changed == [False, False, True] * 3


def test_the_same_seed_decides_the_same_and_another_does_not():
    def play(seed):
        return Bandit(*GRID, HOT).play(_policy(seed=seed), 60)

    torch.manual_seed(1)
    first = play(0)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(play(0), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(play(1), first)


def test_a_saved_policy_goes_on_as_if_nothing_had_happened():
    policy, bandit = _policy(), Bandit(*GRID, HOT)
    bandit.play(policy, 50)
    other = _policy(seed=5)
    other.load_state_dict(copy.deepcopy(policy.state_dict()))
    twin = copy.deepcopy(bandit)
    assert torch.equal(bandit.play(policy, 50), twin.play(other, 50))


def test_a_frozen_policy_does_not_change():
    policy, bandit = _policy(), Bandit(*GRID, HOT)
    bandit.play(policy, 50)
    policy.frozen = True
    before = copy.deepcopy(policy.state_dict())
    bandit.play(policy, 50)
    after = policy.state_dict()
    del before["generator"], after["generator"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_policy_of_another_network_is_refused(channels):
    policy = _policy()
    Bandit(*GRID, HOT).play(policy, 2)
    other, bandit = _policy(), Bandit(*GRID, HOT)
    other.load_state_dict(policy.state_dict())
    bandit.output = log_probabilities(torch.randn(1, channels + 1, 8, 12))
    with pytest.raises(SparseBlockError) as error:
        bandit.play(other, 1)
    assert str(error.value) == (
        "BlockCopy: the saved policy's body.0.weight is [8, 12, 4, 4] but this network and task need "
        f"[8, {9 + channels}, 4, 4]; load a policy that was saved with the same network"
    )


def test_an_unknown_reward_is_refused():
    with pytest.raises(SparseBlockError) as error:
        Training(reward="applause")
    assert str(error.value) == "BlockCopy: no reward is named 'applause'; the rewards are balanced, paper"
