"""BlockCopy on a plan whose ops a backend computes, where no frame may wait: on CPU tensors, and on a GPU where one is.

It is the same policy with other numbers, so it decides as on the host, whose numbers are Python's.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from blockcopy import BlockCopy, names, numbers
from blockcopy.memory import DeviceMemory
from blockcopy.policies import Dice
from film import BLOCK, Logarithm, moving_square, network, play

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.plan import DevicePlan, Plan

CUT = [*moving_square(25), *moving_square(15, seed=1)]  # learning, then another scene


def _videos(**options) -> tuple[BlockCopy, BlockCopy]:
    return tuple(BlockCopy(network(), **{"block_size": BLOCK, "max_age": 16, **options}) for _ in range(2))


def _on_reference(video: BlockCopy, frames: list[torch.Tensor]) -> tuple[torch.Tensor, list]:
    with sparseblock.backend("reference"):
        return play(video, frames)


def _plain(stats):
    return stats.frame, stats.reason, stats.active_fraction, stats.aged, stats.macs, stats.policy_macs


def _check_same(policy: str, **options) -> None:
    host, device = _videos(policy=policy, **options)
    _check_decides_alike(host, device, _on_reference(device, CUT))


def _check_decides_alike(host: BlockCopy, device: BlockCopy, played: tuple[torch.Tensor, list]) -> None:
    (expected, of_host), (masks, of_device) = play(host, CUT), played
    assert type(host.plan) is Plan and type(device.plan) is DevicePlan
    assert torch.equal(masks.cpu(), expected)
    assert list(map(_plain, of_device)) == list(map(_plain, of_host))
    # Of 40 frames each rounds every number in float32 a few dozen times.
    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(_numbers(device.state_dict()), _numbers(host.state_dict()), **close)


def _numbers(state: dict) -> dict:
    del state["name"]
    state["policy"].pop("generator", None)
    return state


@pytest.mark.parametrize("policy", names())
def test_a_device_decides_as_the_host(policy):
    _check_same(policy)


def test_so_it_does_with_the_papers_reward_on_pictures():
    _check_same("blockcopy", reward="paper", task="restoration", train_interval=3)


def test_without_cuts_and_ages():
    _check_same("blockcopy", scene_cut=None, max_age=None)


@pytest.mark.parametrize("policy", ["blockcopy", "difference"])
def test_by_the_kernels_of_cuda_too(policy, cuda_device, monkeypatch):
    """Op by op, with the dice of the host."""
    monkeypatch.setattr(Dice, "begin", lambda self, device: setattr(self, "device", device))
    roll = lambda self, grid: torch.rand(grid, generator=self.generator).to(self.device)  # noqa: E731
    monkeypatch.setattr(Dice, "roll", roll)
    host = _videos(policy=policy)[0]
    device = _WithoutRecordings(network().to(cuda_device), policy=policy, block_size=BLOCK, max_age=16)
    with sparseblock.backend("cuda"):
        played = play(device, [frame.to(cuda_device) for frame in CUT])
    _check_decides_alike(host, device, played)


@pytest.mark.parametrize("plant", ["a scene cut counts", "numbers stay", "a total is a mean"])
def test_planted_faults_are_caught(monkeypatch, plant):
    if plant == "a scene cut counts":
        close = DeviceMemory.close
        monkeypatch.setattr(DeviceMemory, "close", lambda self, counts: close(self, torch.ones_like(counts)))
    elif plant == "numbers stay":
        monkeypatch.setattr(numbers.DeviceNumbers, "where", lambda self, condition, x, y: torch.where(~condition, x, y))
    else:
        monkeypatch.setattr(
            numbers.DeviceNumbers, "total", lambda self, function, *maps: function(*maps).float().mean()
        )
    with pytest.raises(AssertionError):
        _check_same("blockcopy")


def test_what_lasts_stays_where_it_is():
    """Recordings hold addresses: of all that a frame reads from the one before, whatever stream and policy state."""
    video, frames = _videos()[0], moving_square(6)

    def addresses():
        memories = video._learned, video._stream, video._seen
        return [getattr(*item).data_ptr() for memory in memories for item in memory._lasting]

    _on_reference(video, frames)
    before = addresses()
    assert len(set(before)) == len(before)
    _on_reference(video, frames)
    video.freeze()
    video.reset()
    _on_reference(video, frames)
    assert addresses() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_frame_runs_no_block_changes_nothing_and_is_told_of(bad):
    video, other = _videos()
    frames = moving_square(20)
    wrong = frames[7].clone()
    wrong[0, 1, 50, 60] = bad
    _on_reference(video, frames[:7])
    _on_reference(other, frames[:7])
    before = copy.deepcopy(other.state_dict())
    with sparseblock.backend("reference"):
        kept = video(frames[6]).clone(), other(frames[6])
        assert torch.equal(kept[0], video(wrong))
        assert not video.active.any()
        assert (video.stats.reason, video.stats.active_fraction, video.stats.aged) == ("not finite", 0, 0)
        with pytest.raises(SparseBlockError) as error:
            video(frames[7])
    assert str(error.value) == (
        "BlockCopy: of the frames before frame 9, 1 held NaN or infinity, or values whose sums overflow float32, "
        "and ran no block; drop such frames or repair them"
    )
    after, expected = _numbers(video.state_dict()), _numbers(other.state_dict())
    for state in (after, expected):
        del state["policy"]["trainer"]["frames"]  # it was counted
    torch.testing.assert_close(after, expected, rtol=0, atol=0)
    assert before["standardise"] != after["standardise"]
    with sparseblock.backend("reference"):
        video(frames[7])
    assert video.stats.reason == "policy"


@pytest.mark.parametrize("number", [6, 8])  # one that trains, and one that does not
@pytest.mark.parametrize("scene_cut", [None, 0.4])
def test_an_output_that_is_not_finite_never_reaches_the_weights_and_is_told_of(number, scene_cut):
    video, film = BlockCopy(Logarithm().eval(), target=0.9, block_size=BLOCK, scene_cut=scene_cut), moving_square(24)
    _on_reference(video, film[:number])
    with sparseblock.backend("reference"):
        assert not video(torch.full_like(film[0], Logarithm.DARK)).isfinite().all()
        assert video.active.any()
        _check_all_finite(video)
        with pytest.raises(SparseBlockError) as error:
            video(film[number])
    assert str(error.value) == (
        f"BlockCopy: of the frames before frame {number + 1}, 1 had an output of which the policy reads NaN, infinity "
        f"or values beyond {torch.finfo(torch.float32).max:g}, and does not learn from them; the next frame runs all "
        "blocks; give read=, a function that makes finite values of the output"
    )
    masks, stats = _on_reference(video, film[number:])
    assert masks[0].all() and masks[1:].any()
    assert [s.reason for s in stats] == ["first frame"] + ["policy"] * (23 - number)
    _check_all_finite(video)


def _check_all_finite(video: BlockCopy) -> None:
    assert all(value.isfinite().all() for value in _states(video).values())


def test_with_the_outputs_as_they_are_that_is_caught(monkeypatch):
    where = torch.where

    def takes_maps_as_they_are(condition, x, y, **out):
        return x if x.dim() == 4 else where(condition, x, y, **out)

    monkeypatch.setattr(torch, "where", takes_maps_as_they_are)
    with pytest.raises(AssertionError):
        test_an_output_that_is_not_finite_never_reaches_the_weights_and_is_told_of(8, None)


def test_a_first_output_that_is_not_finite_is_refused():
    with sparseblock.backend("reference"), pytest.raises(SparseBlockError, match="output on frame 0 the policy reads"):
        BlockCopy(Logarithm().eval(), block_size=BLOCK)(torch.full((1, 3, 100, 150), Logarithm.DARK))


def test_a_bad_first_frame_is_refused():
    with sparseblock.backend("reference"), pytest.raises(SparseBlockError, match="frame 0 holds NaN or infinity"):
        _videos()[0](torch.full((1, 3, 100, 150), math.nan))


@pytest.mark.parametrize("policy", ["blockcopy", "difference", "random"])
def test_a_policy_goes_from_host_to_device_and_back(policy, tmp_path):
    host, device = _videos(policy=policy)
    play(host, CUT)
    host.save(tmp_path / "policy.pt")
    device.load(tmp_path / "policy.pt")
    host.reset()
    film = moving_square(12, seed=2)
    assert torch.equal(_on_reference(device, film)[0], play(host, film)[0])
    device.save(tmp_path / "policy.pt")
    host.load(tmp_path / "policy.pt")
    device.reset()
    host.freeze()
    device.freeze()
    state = device.state_dict()
    assert torch.equal(_on_reference(device, film)[0], play(host, film)[0])
    torch.testing.assert_close(_numbers(device.state_dict()), _numbers(state), rtol=0, atol=0)


def _on_gpu(gpu: torch.device, **options) -> BlockCopy:
    return BlockCopy(network().to(gpu), **{"block_size": BLOCK, "max_age": 16, **options})


class _WithoutRecordings(BlockCopy):
    """Runs every frame op by op."""

    def _make_plan(self, *given) -> None:
        super()._make_plan(*given)
        self._recorded = lambda frame, policy: self._next(frame)


def _states(video: BlockCopy) -> dict:
    """All that lasts, by name."""
    memories = video._learned, video._stream, video._seen
    items = [item for memory in memories for item in memory._lasting]
    return {f"{number} {name}": getattr(owner, name).clone() for number, (owner, name) in enumerate(items)}


def test_recorded_frames_are_frames_by_op_and_none_waits(gpu):
    """Learning and training frames are recorded; dice, cuts, ages and updates are those of frames by op."""
    frames = [frame.to(gpu) for frame in CUT]
    video, by_op = _on_gpu(gpu), _WithoutRecordings(network().to(gpu), block_size=BLOCK, max_age=16)
    masks = []
    try:
        for number, frame in enumerate(frames):
            # Every kind of frame must have run by op once and be recorded: both are by the second update.
            torch.cuda.set_sync_debug_mode("error" if number > 8 else "default")
            out = video(frame)
            masks.append(video.active)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = []
    for frame in frames:
        out_by_op = by_op(frame)
        expected.append(by_op.active)
    assert len(video._recorded._recordings) == 2
    assert torch.equal(torch.stack(masks), torch.stack(expected))
    assert torch.equal(out, out_by_op)
    assert masks[25].all() and video.stats.network_ms > 0
    torch.testing.assert_close(_states(video), _states(by_op), rtol=0, atol=0)


@pytest.mark.parametrize("policy", names())
def test_no_policy_waits(policy, gpu):
    frames = [frame.to(gpu) for frame in moving_square(20)]
    video = _on_gpu(gpu, policy=policy)
    try:
        for number, frame in enumerate(frames):
            torch.cuda.set_sync_debug_mode("error" if number > 8 else "default")
            video(frame)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 <= video.stats.active_fraction <= 1


def test_a_saved_and_a_frozen_policy_on_a_gpu(gpu, tmp_path):
    frames = [frame.to(gpu) for frame in moving_square(24)]
    video, other = _on_gpu(gpu), _on_gpu(gpu, seed=7)
    play(video, frames)
    video.save(tmp_path / "policy.pt")
    video.reset()
    other.load(tmp_path / "policy.pt")
    assert torch.equal(play(video, frames)[0], play(other, frames)[0])
    state = video.state_dict()
    for each in (video, other):
        each.freeze()
        each.reset()
    assert torch.equal(play(video, frames)[0], play(other, frames)[0])
    torch.testing.assert_close(_numbers(video.state_dict()), _numbers(state), rtol=0, atol=0)
    assert len(video._recorded._recordings) == 3


def test_a_bad_frame_on_a_gpu(gpu):
    frames = [frame.to(gpu) for frame in moving_square(16)]
    video = _on_gpu(gpu)
    play(video, frames[:14])
    kept, before = video(frames[14]).clone(), video.plan
    assert torch.equal(video(torch.full_like(frames[14], math.nan)), kept) and video.plan is before
    torch.cuda.synchronize()
    with pytest.raises(SparseBlockError, match="of the frames before frame 16, 1 held NaN or infinity"):
        video(frames[15])
    assert video(frames[15]).isfinite().all()


class _SumsOfTheFrame(torch.nn.Module):
    """Reads all of the frame in an operator without a rule, whatever blocks run."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + 0.01 * x[:, :1].cumsum(3)


def test_a_bad_frame_is_not_read_by_what_reads_the_whole_frame():
    video, frames = BlockCopy(_SumsOfTheFrame().eval(), block_size=BLOCK), moving_square(4)
    _on_reference(video, frames[:3])
    assert any(node.placement == "dense" for node in video.plan.report().nodes) and video._reads_whole
    wrong = frames[3].clone()
    wrong[0, 0, 50, 60] = math.nan
    with sparseblock.backend("reference"):
        assert video(wrong).isfinite().all()
