"""The runtime on a real plan of a small network."""

from __future__ import annotations

import copy
import math
from unittest.mock import Mock

import pytest
import torch
from blockcopy import BlockCopy, names
from blockcopy.freshness import age_limits
from film import BLOCK, SIZE, Logarithm, moving_square, network, play
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparseblock import SparseBlockError


@pytest.mark.parametrize("policy", names())
@pytest.mark.parametrize("stride", [1, 4])
def test_active_blocks_are_computed_and_the_others_kept(policy, stride):
    model = network(stride=stride)
    video = BlockCopy(model, block_size=BLOCK, policy=policy)
    kept = None
    for frame in moving_square(12):
        out = video(frame)
        dense = model(frame)
        if kept is None:
            kept = dense.clone()
        block = BLOCK // stride
        mask = video.active.repeat_interleave(block, 0).repeat_interleave(block, 1)
        kept = torch.where(mask[: dense.shape[2], : dense.shape[3]], dense, kept)
        torch.testing.assert_close(out, kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_maps_may_be_stored_in_halves(dtype):
    """The policy learns from them as from float32: it acts alike where rounding decides nothing."""
    frames, outs, masks = moving_square(6), [], []
    for stored in (dtype, torch.float32):
        video = BlockCopy(network(), block_size=BLOCK, dtype=stored)
        for frame in frames:
            out = video(frame)
        outs.append(out.float())
        masks.append(video.active)
        assert out.dtype == stored
    assert torch.equal(*masks)
    # Frame, weights of two layers and both maps are rounded, each by half an epsilon: five, a sixth for their products.
    sums = network()
    for parameter in sums.parameters():
        parameter.data.abs_()
    largest = max(sums(frame.abs()).max().item() for frame in frames)
    assert (outs[0] - outs[1]).abs().max() <= 6 * torch.finfo(dtype).eps / 2 * largest


def test_after_a_frame_that_broke_off_the_stream_begins_anew(monkeypatch):
    model, frames = network(), moving_square(5)
    video = BlockCopy(model, block_size=BLOCK)
    play(video, frames[:3])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(video.plan), "_run_segments", Mock(side_effect=KeyboardInterrupt))
        video(frames[3])
    out = video(frames[4])
    assert video.stats.reason == "first frame" and video.stats.frame == 0
    torch.testing.assert_close(out, model(frames[4]))


def test_the_first_frame_runs_all_blocks():
    video = BlockCopy(network(), block_size=BLOCK, policy="none")
    masks, stats = play(video, moving_square(3))
    assert masks[0].all() and not masks[1:].any()
    assert [s.reason for s in stats] == ["first frame", "policy", "policy"]
    assert [s.frame for s in stats] == [0, 1, 2]
    assert [s.active_fraction for s in stats] == [1, 0, 0]
    assert stats[0].macs == video.plan.macs and stats[1].macs == video.plan.dense_macs


def test_macs_are_those_of_the_active_blocks():
    video = BlockCopy(network(), block_size=BLOCK, policy="random", target=0.4)
    masks, stats = play(video, moving_square(6))
    for mask, s in zip(masks, stats, strict=True):
        assert s.macs == video.plan.dense_macs + video.plan.block_macs[mask].sum()
        assert math.isclose(s.active_fraction, mask.float().mean().item())
        assert min(s.policy_ms, s.network_ms, s.train_ms) >= 0


def test_policy_macs_count_training():
    video = BlockCopy(network(), block_size=BLOCK, train_interval=3)
    _, stats = play(video, moving_square(8))
    once = video.policy.trainer.network.macs(video.plan.grid.rows, video.plan.grid.cols)
    assert [s.policy_macs // once for s in stats] == [0, 1, 1, 3, 1, 1, 3, 1]


@pytest.mark.parametrize("policy", ["blockcopy", "all", "random", "static", "difference"])
def test_a_scene_cut_runs_all_blocks(policy):
    video = BlockCopy(network(), block_size=BLOCK, policy=policy)
    masks, stats = play(video, [*moving_square(20), *moving_square(20, seed=1)])
    assert [s.frame for s in stats if s.reason == "scene cut"] == [20]
    assert masks[20].all()


def test_a_scene_cut_is_ignored_where_it_is_told_so():
    film = [*moving_square(10), *moving_square(10, seed=1)]
    for options in ({"policy": "none"}, {"scene_cut": None}):
        _, stats = play(BlockCopy(network(), block_size=BLOCK, **options), film)
        assert [s.reason for s in stats].count("scene cut") == 0


@settings(max_examples=10)
@given(
    st.sampled_from(["blockcopy", "random", "difference", "static"]), st.integers(1, 12), st.sampled_from([0.02, 0.3])
)
def test_no_block_is_ever_older_than_the_maximum_age(policy, max_age, target):
    video = BlockCopy(network(), block_size=BLOCK, policy=policy, max_age=max_age, target=target)
    masks, _ = play(video, moving_square(50))
    age = torch.zeros(masks.shape[1:])
    for mask in masks:
        age = (age + 1).masked_fill(mask, 0)
        assert age.max() <= max_age


def test_a_bound_that_is_off_by_one_is_caught(monkeypatch):
    monkeypatch.setattr("blockcopy.video.age_limits", lambda *grid: age_limits(*grid) + 1)
    with pytest.raises(AssertionError):
        test_no_block_is_ever_older_than_the_maximum_age.hypothesis.inner_test("blockcopy", 5, 0.02)


def test_blocks_do_not_fall_due_all_at_once():
    video = BlockCopy(network(), block_size=BLOCK, target=0.001, max_age=16)
    _, stats = play(video, moving_square(1) * 100)
    assert max(s.aged for s in stats) < video.active.numel() / 2


def test_without_a_maximum_age_nothing_is_forced():
    video = BlockCopy(network(), block_size=BLOCK, target=0.001, max_age=None)
    _, stats = play(video, moving_square(1) * 100)
    assert sum(s.aged for s in stats) == 0


@pytest.mark.parametrize("policy", ["blockcopy", "random", "static", "difference"])
def test_the_target_is_met_on_a_video(policy):
    video = BlockCopy(network(), block_size=BLOCK, policy=policy, target=0.3)
    masks, _ = play(video, moving_square(300))
    assert abs(masks[1:].float().mean().item() - 0.3) < 0.02


def test_dense_frames_do_not_count_towards_the_target():
    video = BlockCopy(network(), block_size=BLOCK, scene_cut=0.5)
    play(video, moving_square(20))
    trainer = video.policy.trainer
    before = (trainer.share.value, trainer.control.level)
    video(moving_square(1, seed=1)[0])
    assert video.stats.reason == "scene cut"
    video.reset()
    video(moving_square(1)[0])
    assert video.stats.reason == "first frame"
    assert (trainer.share.value, trainer.control.level) == before
    video(moving_square(2)[1])
    assert trainer.share.value != before[0]


def test_resets_do_not_move_the_target():
    """Clips of ten frames: their dense first frames leave the others at the target."""
    video = BlockCopy(network(), block_size=BLOCK, target=0.3)
    shares = []
    for clip in range(40):
        masks, _ = play(video, moving_square(10, seed=clip))
        shares.append(masks[1:].float().mean().item())
        video.reset()
    assert abs(sum(shares) / len(shares) - 0.3) < 0.02


@pytest.mark.parametrize("policy", names())
def test_the_same_seed_decides_the_same(policy):
    first, _ = play(BlockCopy(network(), block_size=BLOCK, policy=policy, seed=3), moving_square(40))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, _ = play(BlockCopy(network(), block_size=BLOCK, policy=policy, seed=3), moving_square(40))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("policy", names())
@pytest.mark.parametrize("frozen", [False, True])
def test_what_was_saved_decides_as_what_was_not(policy, frozen, tmp_path):
    video = BlockCopy(network(), block_size=BLOCK, policy=policy)
    play(video, moving_square(40))
    video.save(tmp_path / "policy.pt")
    video.reset()
    other = BlockCopy(network(), block_size=BLOCK, policy=policy, seed=7)
    other.load(tmp_path / "policy.pt")
    if frozen:
        video.freeze()
        other.freeze()
    assert torch.equal(play(video, moving_square(30, seed=2))[0], play(other, moving_square(30, seed=2))[0])


def test_a_frozen_policy_can_be_let_go_again():
    video = BlockCopy(network(), block_size=BLOCK)
    play(video, moving_square(20))
    weights = video.policy.trainer.network.parameters.clone()
    video.freeze()
    play(video, moving_square(20))
    assert torch.equal(weights, video.policy.trainer.network.parameters)
    video.unfreeze()
    play(video, moving_square(20))
    assert not torch.equal(weights, video.policy.trainer.network.parameters)


def test_a_policy_learns_in_inference_mode_too():
    outside, _ = play(BlockCopy(network(), block_size=BLOCK), moving_square(30))
    model = network()
    with torch.inference_mode():
        inside, _ = play(BlockCopy(model, block_size=BLOCK), [frame.clone() for frame in moving_square(30)])
    assert torch.equal(outside, inside)


def test_the_number_of_threads_is_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        play(BlockCopy(network(), block_size=BLOCK), moving_square(3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size, block", [((20, 30), 64), ((1, 1), 8), ((33, 65), 32), ((64, 64), 64), ((70, 50), 20)])
@pytest.mark.parametrize("policy", names())
def test_any_frame_and_block_size(size, block, policy):
    masks, _ = play(BlockCopy(network(), block_size=block, policy=policy), moving_square(10, size))
    assert masks.shape[1:] == (-(-size[0] // block), -(-size[1] // block))


def test_frames_may_be_channels_last_and_of_any_channels():
    model = nn.Conv2d(1, 1, 3, padding=1).eval()
    video = BlockCopy(model, task="restoration", block_size=16)
    for _ in range(6):
        frame = torch.rand(1, 32, 48, 1).permute(0, 3, 1, 2)
        assert video(frame).shape == frame.shape


BAD_ARGUMENTS = [
    ({"target": 0}, "target is 0; it must be a share of blocks in (0, 1]"),
    ({"target": 1.5}, "target is 1.5; it must be a share of blocks in (0, 1]"),
    ({"target": float("nan")}, "target is nan; it must be a share of blocks in (0, 1]"),
    ({"target": "a third"}, "target is 'a third'; it must be a share of blocks in (0, 1]"),
    ({"block_size": 0}, "block_size is 0; it must be a positive integer (pixels) below 2**31"),
    ({"block_size": 12.5}, "block_size is 12.5; it must be a positive integer (pixels) below 2**31"),
    ({"block_size": 2**31}, "block_size is 2147483648; it must be a positive integer (pixels) below 2**31"),
    ({"max_age": 0}, "max_age is 0; it must be a positive integer (frames) below 2**31, or None"),
    ({"max_age": 2**31}, "max_age is 2147483648; it must be a positive integer (frames) below 2**31, or None"),
    ({"seed": -1}, "seed is -1; it must be an integer in [0, 2**63)"),
    ({"seed": 2**70}, f"seed is {2**70}; it must be an integer in [0, 2**63)"),
    ({"seed": "x"}, "seed is 'x'; it must be an integer in [0, 2**63)"),
    ({"seed": True}, "seed is True; it must be an integer in [0, 2**63)"),
    ({"model": 5}, "model is int; it must be an nn.Module in eval mode"),
    ({"gamma": float("nan")}, "gamma is nan; it must be a finite number, at least 0"),
    ({"lr": -1}, "lr is -1; it must be a finite number, at least 0"),
    ({"lr": float("inf")}, "lr is inf; it must be a finite number, at least 0"),
    ({"summary_lr": None}, "summary_lr is None; it must be a finite number, at least 0"),
    ({"weight_decay": "x"}, "weight_decay is 'x'; it must be a finite number, at least 0"),
    ({"task": []}, "no task is named []; the tasks are segmentation, restoration, detection"),
    ({"policy": []}, "no policy is named []; the policies are blockcopy, all, none, random, static, difference"),
    ({"scene_cut": -1}, "scene_cut is -1; it must be a positive distance, or None"),
    ({"train_interval": 0}, "train_interval is 0; it must be a positive integer (frames) below 2**31"),
    ({"task": "x"}, "no task is named 'x'; the tasks are segmentation, restoration, detection"),
    ({"policy": "x"}, "no policy is named 'x'; the policies are blockcopy, all, none, random, static, difference"),
    ({"reward": "x"}, "no reward is named 'x'; the rewards are balanced, paper"),
]


@pytest.mark.parametrize("arguments, message", BAD_ARGUMENTS)
def test_bad_arguments(arguments, message):
    with pytest.raises(SparseBlockError) as error:
        BlockCopy(**{"model": network(), **arguments})
    assert str(error.value) == f"BlockCopy: {message}"


BAD_FRAMES = [
    (
        torch.ones(1, 3, 100, 150).to_sparse(),
        "frame is of the layout torch.sparse_coo; it must be a dense tensor; give frame.to_dense()",
    ),
    (
        torch.full((1, 3, 100, 150), 3e38),
        "frame 5 holds values up to 3e+38, whose sums overflow float32; drop the frame or scale it",
    ),
    (torch.rand(3, 100, 150), "frame is torch.float32 [3, 100, 150]; it must be a float32 tensor [1, c, h, w]"),
    (torch.rand(2, 3, 100, 150), "frame is torch.float32 [2, 3, 100, 150]; it must be a float32 tensor [1, c, h, w]"),
    (torch.zeros(1, 3, 8, 8).int(), "frame is torch.int32 [1, 3, 8, 8]; it must be a float32 tensor [1, c, h, w]"),
    ("frame", "frame is str; it must be a float32 tensor [1, c, h, w]"),
    (
        torch.rand(1, 3, 100, 151),
        "frame is [1, 3, 100, 151] but the stream's first was [1, 3, 100, 150]; "
        "a stream keeps its size; make a BlockCopy for the new one",
    ),
    (
        torch.full((1, 3, 100, 150), float("nan")),
        "frame 5 holds NaN or infinity; the cache would keep it; drop the frame or repair it",
    ),
]


@pytest.mark.parametrize("frame, message", BAD_FRAMES)
def test_a_bad_frame_is_refused_and_the_stream_goes_on(frame, message):
    video, other = BlockCopy(network(), block_size=BLOCK), BlockCopy(network(), block_size=BLOCK)
    film = moving_square(20)
    play(video, film[:5])
    with pytest.raises(SparseBlockError) as error:
        video(frame)
    assert str(error.value) == f"BlockCopy: {message}"
    play(other, film[:5])
    assert torch.equal(play(video, film[5:])[0], play(other, film[5:])[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_pixel_is_enough_even_in_the_first_frame(value):
    frame = torch.rand(1, 3, *SIZE)
    frame[0, 1, -1, -1] = value
    video = BlockCopy(network(), block_size=BLOCK)
    with pytest.raises(SparseBlockError, match=r"^BlockCopy: frame 0 holds NaN or infinity; "):
        video(frame)
    assert video.plan is None
    assert video(torch.rand(1, 3, *SIZE)).isfinite().all()


UNREADABLE = (
    "BlockCopy: of the network's output on frame {} the policy reads NaN, infinity or values beyond {:g}, so that the "
    "information gain of blocks is no number; the next frame runs all blocks; "
    "give read=, a function that makes finite values of the output"
)
LARGEST = torch.finfo(torch.float32).max


def _learned(video: BlockCopy) -> dict:
    """Without what counts frames: these the dice and the host count before the network runs."""
    state = copy.deepcopy(video.state_dict())
    del state["name"], state["policy"]["generator"], state["policy"]["trainer"]["frames"]
    return state


@pytest.mark.parametrize("number", [6, 8])  # one that trains, and one that does not
@pytest.mark.parametrize("scene_cut", [None, 0.4])
@pytest.mark.parametrize("frozen", [False, True])
def test_an_output_that_is_not_finite_is_refused_in_its_frame_and_nothing_learned(number, scene_cut, frozen):
    video, film = BlockCopy(Logarithm().eval(), target=0.9, block_size=BLOCK, scene_cut=scene_cut), moving_square(20)
    play(video, film[:number])
    if frozen:
        video.freeze()
    before = _learned(video)
    with pytest.raises(SparseBlockError) as error:
        video(torch.full_like(film[0], Logarithm.DARK))
    assert str(error.value) == UNREADABLE.format(number, LARGEST)
    torch.testing.assert_close(_learned(video), before, rtol=0, atol=0)
    masks, stats = play(video, film[number:])
    assert masks[0].all() and masks[1:].any()
    assert [s.reason for s in stats] == ["first frame"] + ["policy"] * (19 - number)
    assert video.policy.trainer.network.parameters.isfinite().all()


def test_an_output_that_is_not_finite_in_the_first_frame():
    video, other = (BlockCopy(Logarithm().eval(), block_size=BLOCK) for _ in range(2))
    film = moving_square(12)
    for _ in range(2):
        with pytest.raises(SparseBlockError) as error:
            video(torch.full_like(film[0], Logarithm.DARK))
        assert str(error.value) == UNREADABLE.format(0, LARGEST)
    assert torch.equal(play(video, film)[0], play(other, film)[0])


def test_read_may_make_it_finite():
    video = BlockCopy(Logarithm().eval(), block_size=BLOCK, read=lambda out: out.clamp(min=-50))
    play(video, [torch.full((1, 3, *SIZE), Logarithm.DARK), *moving_square(12)])
    assert video.policy.trainer.network.parameters.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e10])
@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_objects_are_numbers_too(value, where):
    found = {"boxes": torch.tensor([[3.0, 3, 40, 40]]), "scores": torch.ones(1), "labels": torch.ones(1)}
    bad = {**found, where: torch.full_like(found[where], value)}
    outputs = iter([found, found, bad, found])
    video = BlockCopy(network(), task="detection", block_size=BLOCK, read=lambda out: next(outputs))
    film = moving_square(4)
    play(video, film[:2])
    with pytest.raises(SparseBlockError) as error:
        video(film[2])
    assert str(error.value) == UNREADABLE.format(2, 2**30)
    video(film[3])
    assert video.stats.reason == "first frame"


@pytest.mark.parametrize("value", [1e35, -2e9])
def test_pictures_beyond_the_limit_are_refused(value):
    video = BlockCopy(network(), task="restoration", block_size=BLOCK, read=lambda out: torch.full_like(out, value))
    with pytest.raises(SparseBlockError) as error:
        video(moving_square(1)[0])
    assert str(error.value) == UNREADABLE.format(0, 2**30)


def test_without_the_limit_weights_become_nan_which_is_caught(monkeypatch):
    monkeypatch.setattr("blockcopy.information_gain.Seen.within", lambda *_: True)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_an_output_that_is_not_finite_is_refused_in_its_frame_and_nothing_learned(6, None, False)


def test_a_state_of_another_policy_is_refused():
    video = BlockCopy(network(), policy="random")
    with pytest.raises(SparseBlockError) as error:
        BlockCopy(network()).load_state_dict(video.state_dict())
    assert str(error.value) == (
        "BlockCopy: the state is of the policy 'random' but this one is 'blockcopy'; "
        "make BlockCopy with the policy that was saved"
    )


def _mangled(state: dict, *path: str, value: object = None) -> dict:
    """`state` with what lies at `path` replaced by `value`, or removed."""
    *way, last = path
    inner = state
    for key in way:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return state


MANGLED = [
    ("blockcopy", lambda s: {"name": "blockcopy"}, "KeyError"),
    ("blockcopy", lambda s: _mangled(s, "policy", value={"foo": 1}), "KeyError"),
    ("blockcopy", lambda s: _mangled(s, "policy", value=5), "TypeError"),
    ("blockcopy", lambda s: _mangled(s, "standardise", value={}), "KeyError"),
    ("blockcopy", lambda s: _mangled(s, "standardise", "mean", value=torch.zeros(3)), "TypeError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "generator", value=torch.zeros(3)), "TypeError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "change_level", value="x"), "TypeError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "trainer", "network"), "KeyError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "trainer", "network", "body.1.weight"), "KeyError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "trainer", "optimizer", value={}), "KeyError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "trainer", "share", value=float("nan")), "TypeError"),
    ("blockcopy", lambda s: _mangled(s, "policy", "trainer", "gains", "sum", value="x"), "TypeError"),
    ("random", lambda s: _mangled(s, "policy", value={}), "KeyError"),
    ("static", lambda s: _mangled(s, "policy", value=[1]), "TypeError"),
    ("difference", lambda s: _mangled(s, "policy", "window", value=[1]), "TypeError"),
]


@pytest.mark.parametrize("policy, mangle, kind", MANGLED)
def test_a_state_with_something_else_inside_is_refused_and_changes_nothing(policy, mangle, kind):
    film = moving_square(12)
    video, other = (BlockCopy(network(), block_size=BLOCK, policy=policy) for _ in range(2))
    play(video, film[:6])
    play(other, film[:6])
    with pytest.raises(SparseBlockError) as error:
        video.load_state_dict(mangle(BlockCopy.state_dict(other)))
    assert str(error.value) == (
        f"BlockCopy: the state holds a policy '{policy}' that is damaged or something else ({kind}); "
        "give what BlockCopy.state_dict gave or BlockCopy.save wrote"
    )
    assert torch.equal(play(video, film[6:])[0], play(other, film[6:])[0])


def test_a_policy_of_another_network_is_refused_on_the_first_frame():
    saved = BlockCopy(network(out=4), block_size=BLOCK)
    play(saved, moving_square(6))
    video = BlockCopy(network(), block_size=BLOCK)
    video.load_state_dict(saved.state_dict())
    with pytest.raises(SparseBlockError) as error:
        video(moving_square(1)[0])
    assert str(error.value) == (
        "BlockCopy: the saved policy's body.0.weight is [8, 12, 4, 4] but this network and task need "
        "[8, 13, 4, 4]; load a policy that was saved with the same network"
    )


def test_a_policy_file_that_is_none(tmp_path):
    missing, junk, other = (tmp_path / name for name in ("missing.pt", "junk.pt", "other.pt"))
    junk.write_bytes(b"junk")
    torch.save({"weights": torch.zeros(3)}, other)
    video = BlockCopy(network())
    lines = {
        missing: f"no policy can be read from {missing}: No such file or directory",
        junk: f"no policy can be read from {junk}: it is damaged or something else",
        other: f"{other} holds no policy",
    }
    for path, line in lines.items():
        with pytest.raises(SparseBlockError) as error:
            video.load(path)
        assert str(error.value) == f"BlockCopy: {line}; give a file that BlockCopy.save wrote"


def test_a_truncated_policy_file(tmp_path):
    video = BlockCopy(network(), block_size=BLOCK)
    play(video, moving_square(10))
    path = tmp_path / "policy.pt"
    video.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SparseBlockError, match=r"^BlockCopy: no policy can be read from"):
        video.load(path)


def test_a_network_without_one_output_map_needs_another_policy():
    class Two(nn.Module):
        def forward(self, x):
            return x * 2, x + 1

    film = moving_square(3)
    assert len(BlockCopy(Two().eval(), block_size=BLOCK, policy="random")(film[0])) == 2
    with pytest.raises(SparseBlockError, match=r"^BlockCopy: the network's output is a tuple of 2; "):
        BlockCopy(Two().eval(), block_size=BLOCK)(film[0])
    with pytest.raises(SparseBlockError, match=r"^BlockCopy: read is str; it must be a function of the output$"):
        BlockCopy(Two().eval(), block_size=BLOCK, read="first")
    first = BlockCopy(Two().eval(), block_size=BLOCK, read=lambda out: out[0])
    assert [len(first(frame)) for frame in film] == [2, 2, 2] and first.stats.policy_macs > 0
