from __future__ import annotations

import copy

import pytest
import torch
from bandit import SEGMENTATION, Bandit
from blockcopy import names, policies
from blockcopy.trainer import Training

from sparseblock import SparseBlockError

GRID = (4, 6)


def _play(name: str, target: float, frames: int, hot: int = 6, seed: int = 0) -> tuple[torch.Tensor, Bandit]:
    bandit = Bandit(*GRID, hot)
    return bandit.play(policies.make(name, target, seed, SEGMENTATION, Training()), frames), bandit


def test_names():
    assert names() == ["blockcopy", "all", "none", "random", "static", "difference"]


def test_an_unknown_policy_is_refused():
    with pytest.raises(SparseBlockError) as error:
        policies.make("coin", 0.3, 0, SEGMENTATION, Training())
    assert str(error.value) == (
        "BlockCopy: no policy is named 'coin'; the policies are blockcopy, all, none, random, static, difference"
    )


def test_all_and_none():
    assert _play("all", 0.3, 5)[0].all()
    assert not _play("none", 0.3, 5)[0].any()


@pytest.mark.parametrize("name", ["random", "static", "difference"])
@pytest.mark.parametrize("target", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("hot", [0, 6])
def test_baselines_meet_the_target(name, target, hot):
    played, _ = _play(name, target, 400, hot)
    assert abs(played.float().mean().item() - target) < 0.02


def test_random_is_seeded():
    first, _ = _play("random", 0.3, 20)
    assert torch.equal(_play("random", 0.3, 20)[0], first)
    assert not torch.equal(_play("random", 0.3, 20, seed=1)[0], first)


@pytest.mark.parametrize("target", [0.05, 0.3, 0.34, 1.0])
def test_static_visits_every_block_in_turn(target):
    played, _ = _play("static", target, 200)
    per_frame = played.sum((1, 2))
    assert per_frame.max() - per_frame.min() <= 1
    cycle = int(-(-1 // target)) + 1
    for start in range(0, 200 - cycle):
        assert played[start : start + cycle].any(0).all()
    visits = played.sum(0)
    assert visits.max() - visits.min() <= 1


def test_static_spreads_a_frame_over_the_grid():
    played, _ = _play("static", 0.25, 8)
    for mask in played:
        assert all(mask[rows, cols].any() for rows in (slice(0, 2), slice(2, 4)) for cols in (slice(0, 3), slice(3, 6)))


def test_difference_takes_the_blocks_that_change():
    played, bandit = _play("difference", 0.25, 100)
    assert (played[20:] & bandit.hot).sum() > 0.9 * played[20:].sum()


def test_difference_of_a_still_scene_takes_the_oldest_blocks():
    played, _ = _play("difference", 0.25, 200, hot=0)
    visits = played.sum(0)
    assert visits.min() > visits.max() / 2


@pytest.mark.parametrize("name", ["random", "static", "difference"])
def test_saved_baselines_go_on(name):
    bandit = Bandit(*GRID, 6)
    policy = policies.make(name, 0.3, 0, SEGMENTATION, Training())
    bandit.play(policy, 30)
    if name == "static":  # its place in the schedule is the stream's, not learned
        policy.reset()
    other = policies.make(name, 0.3, 9, SEGMENTATION, Training())
    other.load_state_dict(copy.deepcopy(policy.state_dict()))
    twin = copy.deepcopy(bandit)
    assert torch.equal(bandit.play(policy, 30), twin.play(other, 30))
