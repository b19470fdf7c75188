"""`blockcopy run` from end to end, within the process."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from blockcopy import BlockCopy, session
from clips import cut, decode, encode, street

from sparseblock import SparseBlockError

SMALL = ("--network", "streets", "--block-size", 32, "--threads", 1)
TOTALS = {
    *("frames", "active_fraction", "active_fraction_chosen", "forced_frames", "macs", "policy_macs", "dense_macs"),
    *("macs_vs_dense", "policy_ms", "train_ms", "network_ms", "prepare_ms", "io_ms", "fps", "compared_frames"),
    *("dense_ms", "dense_fps", "speed_up", "pixel_agreement", "mean_iou", "psnr_db"),
    "box_agreement",
}


def read_report(path: Path) -> dict:
    def refuse(constant: str):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_video_and_report_and_table(blockcopy_command, clip, out):
    code, printed, complained = blockcopy_command(
        *("run", clip, *SMALL, "--target", 0.3, "--output", out / "v.mp4", "--report", out / "r.json"),
        *("--compare-every", 4, "--seed", 3),
    )
    assert (code, complained) == (0, "")
    assert "frames/s" in printed
    assert "speed-up" in printed
    assert sorted(p.name for p in out.iterdir()) == ["r.json", "r.png", "v.mp4"]

    frames, rate = decode(out / "v.mp4")
    assert (len(frames), rate, frames[0].shape) == (20, 25, (96, 128, 3))

    report = read_report(out / "r.json")
    assert report["status"] == "complete"
    assert report["run"]["seed"] == 3
    assert report["environment"]["threads"] == 1
    totals, listed = report["totals"], report["frames"]
    assert set(totals) == TOTALS
    assert totals["frames"] == len(listed) == 20
    assert [f["frame"] for f in listed] == list(range(20))
    assert listed[0]["reason"] == "first frame"
    assert listed[0]["active_fraction"] == 1.0
    assert listed[0]["macs"] == totals["dense_macs"]
    assert all(0 <= f["active_fraction"] <= 1 for f in listed)
    assert all(f["network_ms"] > 0 and f["io_ms"] > 0 for f in listed)
    assert [f["frame"] // 4 for f in listed if f["dense"]] == [0, 1, 2, 3, 4]
    assert totals["compared_frames"] == 5
    assert 0 < totals["pixel_agreement"] <= 1
    assert 0 < totals["mean_iou"] <= 1
    assert totals["psnr_db"] is None


def test_all_blocks_is_the_dense_network(blockcopy_command, clip, out):
    code, _, _ = blockcopy_command(
        *("run", clip, *SMALL, "--policy", "all", "--compare-every", 1, "--frames", 6, "--report", out / "r.json")
    )
    assert code == 0
    totals = read_report(out / "r.json")["totals"]
    assert totals["frames"] == 6
    assert totals["active_fraction"] == 1.0
    # Rounding may turn a pixel whose two best classes tie; nothing else may differ.
    assert totals["pixel_agreement"] * 96 * 128 >= 96 * 128 - 1


@pytest.mark.parametrize("policy", ["blockcopy", "all"])
def test_detection_reports_boxes_and_draws_them(blockcopy_command, clip, out, policy):
    code, printed, complained = blockcopy_command(
        *("run", clip, "--network", "lffd", "--block-size", 32, "--frames", 6, "--compare-every", 2, "--threads", 1),
        *("--policy", policy, "--output", out / "v.mp4", "--report", out / "r.json"),
    )
    assert (code, complained) == (0, "blockcopy: lffd runs with random weights; give --weights FILE\n")
    assert "boxes as dense" in printed
    report = read_report(out / "r.json")
    totals = report["totals"]
    assert totals["pixel_agreement"] is None and totals["psnr_db"] is None
    assert [f["frame"] // 2 for f in report["frames"] if f["dense"]] == [0, 1, 2]
    assert 0 <= totals["box_agreement"] <= 1
    if policy == "all":  # of random weights: rounding decides where two scores tie, nothing else may differ
        assert totals["box_agreement"] > 0.95
    else:
        assert totals["active_fraction"] < 1 and totals["policy_macs"] > 0
    frames, _ = decode(out / "v.mp4")
    assert len(frames) == 6


def test_restoration_reports_decibels_and_draws_the_restored_frame(blockcopy_command, clip, out):
    code, printed, _ = blockcopy_command(
        *("run", clip, "--network", "vdsr", "--block-size", 64, "--frames", 4, "--compare-every", 2, "--threads", 1),
        *("--output", out / "v.mkv", "--report", out / "r.json"),
    )
    assert code == 0
    assert "PSNR to dense" in printed
    totals = read_report(out / "r.json")["totals"]
    assert totals["psnr_db"] > 0
    assert totals["pixel_agreement"] is None
    assert len(decode(out / "v.mkv")[0]) == 4


@pytest.mark.parametrize("every", [1, 2, 10])
def test_one_frame_of_every_stretch_is_compared_any_of_them(every):
    def compared(seed):
        return [frame for frame in range(100 * every) if session.is_compared(frame, every, seed)]

    frames = compared(3)
    assert [frame // every for frame in frames] == list(range(100))
    counts = [sum(frame % every == place for frame in frames) for place in range(every)]
    deviation = (100 / every * (1 - 1 / every)) ** 0.5
    assert all(abs(count - 100 / every) <= 4 * deviation for count in counts)
    assert compared(3) == frames
    assert every == 1 or compared(4) != frames


def test_the_same_seed_chooses_the_same_blocks(blockcopy_command, clip, out):
    activity = []
    for name in ("a", "b"):
        blockcopy_command("run", clip, *SMALL, "--compare-every", 0, "--seed", 5, "--report", out / f"{name}.json")
        activity.append([f["active_fraction"] for f in read_report(out / f"{name}.json")["frames"]])
    assert activity[0] == activity[1]


def test_a_policy_is_saved_loaded_and_frozen(blockcopy_command, clip, out):
    first, second = out / "first.pt", out / "second.pt"
    code, printed, _ = blockcopy_command("run", clip, *SMALL, "--compare-every", 0, "--save-policy", first)
    assert code == 0
    assert str(first) in printed
    code, _, complained = blockcopy_command(
        *("run", clip, *SMALL, "--compare-every", 0, "--load-policy", first, "--freeze", "--save-policy", second)
    )
    assert (code, complained) == (0, "")
    before, after = (torch.load(path, weights_only=True)["policy"]["trainer"]["network"] for path in (first, second))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("size", [(30, 44), (98, 130), (64, 256)])
@pytest.mark.parametrize("block", [32, 256])
def test_sizes_that_are_no_multiple_and_frames_smaller_than_a_block(blockcopy_command, tmp_path, out, size, block):
    clip = encode(tmp_path / "v.mp4", street(5, *size))
    code, _, complained = blockcopy_command(
        *("run", clip, "--network", "streets", "--block-size", block, "--compare-every", 2, "--output", out / "v.mp4")
    )
    assert (code, complained) == (0, "")
    frames, _ = decode(out / "v.mp4")
    assert (len(frames), frames[0].shape[:2]) == (5, size)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(25, 2)], ids=str)
def test_the_rate_of_the_source_is_kept(blockcopy_command, tmp_path, out, rate):
    clip = encode(tmp_path / "v.mp4", street(6), rate=rate)
    assert blockcopy_command("run", clip, *SMALL, "--compare-every", 0, "--output", out / "v.mp4")[0] == 0
    assert decode(out / "v.mp4")[1] == rate


def test_a_cut_off_video_gives_its_good_part_and_one_line(blockcopy_command, clip, tmp_path, out):
    broken = cut(clip, tmp_path / "broken.mp4", 0.8)
    code, _, complained = blockcopy_command(
        "run", broken, *SMALL, "--compare-every", 0, "--output", out / "v.mp4", "--report", out / "r.json"
    )
    frames, _ = decode(out / "v.mp4")
    report = read_report(out / "r.json")
    assert code == 2
    assert 0 < len(frames) == report["totals"]["frames"] < 20
    assert complained.count("\n") == 1
    assert complained.startswith(
        f"blockcopy: video {broken}: it is cut off or damaged after {len(frames)} good frames ("
    )
    assert report["status"] == f"stopped: {complained.removeprefix('blockcopy: ').strip()}"
    assert sorted(p.name for p in out.iterdir()) == ["r.json", "r.png", "v.mp4"]


def test_another_resolution_in_mid_stream_closes_the_outputs(blockcopy_command, tmp_path, out):
    both = tmp_path / "both.ts"
    parts = [encode(tmp_path / f"{h}.ts", street(8, h, 128)) for h in (96, 64)]
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    code, _, complained = blockcopy_command("run", both, *SMALL, "--compare-every", 0, "--output", out / "v.mp4")
    assert code == 2
    assert complained == (
        f"blockcopy: video {both}: frame 8 is 128x64 but the frames before are 128x96; one run holds one resolution: "
        "cut the video there, or scale it to one size\n"
    )
    assert len(decode(out / "v.mp4")[0]) == 8


def test_existing_outputs_are_replaced(blockcopy_command, clip, out):
    for name in ("v.mp4", "r.json", "r.png"):
        (out / name).write_text("old")
    blockcopy_command(
        "run", clip, *SMALL, "--compare-every", 0, "--frames", 3, "--output", out / "v.mp4", "--report", out / "r.json"
    )
    assert len(decode(out / "v.mp4")[0]) == 3
    assert read_report(out / "r.json")["totals"]["frames"] == 3


def test_not_a_number_in_a_frame_is_refused():
    video = BlockCopy(torch.nn.Conv2d(3, 4, 3, padding=1).eval(), target=0.3, block_size=32)
    frame = torch.zeros(1, 3, 64, 64)
    video(frame)
    frame[0, 1, 5, 7] = float("nan")
    with pytest.raises(SparseBlockError):
        video(frame)


def test_a_real_clip_with_real_weights(blockcopy_command, out, data):
    code, _, complained = blockcopy_command(
        *("run", data / "videos/fixed_road_360p.mp4", "--network", "espnet", "--block-size", 64, "--frames", 20),
        *("--weights", data / "weights/espnet_p2q8_cityscapes.pth", "--compare-every", 10),
        *("--output", out / "v.mp4", "--report", out / "r.json"),
    )
    assert (code, complained) == (0, "")
    frames, rate = decode(out / "v.mp4")
    assert (len(frames), rate, frames[0].shape) == (20, 30, (360, 640, 3))
    totals = read_report(out / "r.json")["totals"]
    assert totals["macs"] + totals["policy_macs"] < totals["dense_macs"]
    assert totals["compared_frames"] == 2


def test_defaults_of_the_command_and_of_its_settings_agree():
    settings = session.Settings(video="v", network="streets")
    from blockcopy import commands

    defaults = dict(zip(commands.run.__annotations__, (None, None, *commands.run.__defaults__), strict=False))
    for name, value in defaults.items():
        if name not in ("video", "network"):
            assert getattr(settings, name) == value, name


def test_the_maximum_age_is_64_unless_said_and_0_is_never(blockcopy_command, clip, monkeypatch):
    made = []
    monkeypatch.setattr(session, "BlockCopy", lambda *a, **options: made.append(options) or BlockCopy(*a, **options))
    for arguments in ((), ("--max-age", 5), ("--max-age", 0)):
        assert blockcopy_command("run", clip, *SMALL, "--frames", 2, "--compare-every", 0, *arguments)[0] == 0
    assert [options["max_age"] for options in made] == [64, 5, None]


def test_few_frames_say_no_speed_up(blockcopy_command, clip):
    for frames, said in ((5, False), (6, True)):
        code, printed, _ = blockcopy_command("run", clip, *SMALL, "--frames", frames, "--compare-every", 2)
        assert code == 0
        (line,) = (line for line in printed.splitlines() if "speed-up" in line)
        assert line.split()[1].endswith("x") == said
        assert (line.split()[1] == "-") != said


def test_a_policy_goes_back_to_the_file_it_came_from(blockcopy_command, clip, tmp_path):
    path = tmp_path / "p.pt"
    arguments = ("run", clip, *SMALL, "--frames", 4, "--compare-every", 0, "--save-policy", path)
    assert blockcopy_command(*arguments)[0] == 0
    before = path.read_bytes()
    assert blockcopy_command(*arguments, "--load-policy", path)[0] == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize("prefix", ["file:", "file://"])
def test_a_file_by_its_prefix(blockcopy_command, clip, monkeypatch, prefix):
    monkeypatch.chdir(clip.parent)
    for name in (clip, clip.name):
        assert blockcopy_command("run", f"{prefix}{name}", *SMALL, "--frames", 2, "--compare-every", 0)[0] == 0


@pytest.mark.parametrize(("network", "lines"), [("vdsr", 1), ("streets", 0)])
def test_random_weights_are_said(blockcopy_command, clip, network, lines):
    code, _, complained = blockcopy_command(
        "run", clip, "--network", network, "--block-size", 32, "--frames", 1, "--compare-every", 0
    )
    assert code == 0
    assert complained == f"blockcopy: {network} runs with random weights; give --weights FILE\n" * lines
