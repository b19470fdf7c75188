"""`blockcopy demo` compares its contenders on one scene and leaves a video and a picture."""

from __future__ import annotations

import av
from clips import decode

TINY = ("--frames", 6, "--height", 96, "--width", 192, "--block-size", 32, "--threads", 1)


def test_contenders_side_by_side(blockcopy_command, out):
    code, printed, complained = blockcopy_command("demo", *TINY, "--output-dir", out / "new")
    assert (code, complained) == (0, "")
    for name in ("dense", "lower frame rate", "random", "difference", "BlockCopy"):
        assert name in printed
    for title in ("mIoU", "active", "GMAC", "frames/s", "speed-up"):
        assert title in printed
    assert sorted(p.name for p in (out / "new").iterdir()) == ["demo.mp4", "demo.png"]
    frames, rate = decode(out / "new" / "demo.mp4")
    assert (len(frames), rate, frames[0].shape) == (6, 25, (192, 384, 3))
    with av.open(str(out / "new" / "demo.png")) as picture:
        assert next(picture.decode(video=0)).width > 600


def test_bad_settings_leave_nothing(blockcopy_command, out):
    for arguments in (
        ("--target", 0),
        ("--camera", "flying"),
        ("--height", 3),
        ("--height", 100000, "--width", 100000),
        ("--frames", 1),
        ("--block-size", 0),
        ("--threads", 3000000000),
    ):
        code, printed, complained = blockcopy_command("demo", *TINY, "--output-dir", out / "new", *arguments)
        assert (code, printed) == (2, "")
        assert complained.count("\n") == 1
        assert list(out.iterdir()) == []


def test_a_seed_out_of_range_is_said_as_it_was_given(blockcopy_command, out):
    code, printed, complained = blockcopy_command("demo", *TINY, "--output-dir", out / "new", "--seed", -9999999)
    assert (code, printed, list(out.iterdir())) == (2, "", [])
    # The rest of the line is typer's, in words that differ between its versions.
    assert complained.startswith("blockcopy: Invalid value for '--seed': ")
    assert complained.count("\n") == 1


def test_few_frames_say_no_speed_up(blockcopy_command, out):
    code, printed, _ = blockcopy_command("demo", *TINY, "--frames", 3, "--output-dir", out)
    assert code == 0
    rows = [line.split() for line in printed.splitlines() if "%" in line]
    assert [row[-1] for row in rows] == ["-"] * 5


def test_a_directory_that_cannot_be_made(blockcopy_command, tmp_path):
    (tmp_path / "file").touch()
    code, _, complained = blockcopy_command("demo", *TINY, "--output-dir", tmp_path / "file" / "sub")
    assert code == 2
    assert complained == f"blockcopy: output {tmp_path / 'file' / 'sub'}: Not a directory; give another directory\n"
