"""Bad input: one line that says what is wrong, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tasknets
import torch

ADVICE = "give a video file, a camera index or a stream URL"
NETWORKS = ", ".join(tasknets.names())


@pytest.fixture
def refused(blockcopy_command, clip, out):
    """Run with arguments that replace good ones; gives the message, after checking that nothing but it came of it."""
    before = clip.read_bytes()

    def run(*arguments: object, video: object = clip, network: str = "streets") -> str:
        outputs = ("--output", out / "v.mp4", "--report", out / "r.json")
        code, printed, complained = blockcopy_command("run", video, "--network", network, *outputs, *arguments)
        assert code == 2
        assert printed == ""
        assert complained.startswith("blockcopy: ")
        assert complained.endswith("\n")
        assert complained.count("\n") == 1
        assert list(out.iterdir()) == []
        assert clip.read_bytes() == before
        return complained.removeprefix("blockcopy: ").strip()

    return run


def test_no_such_video(refused, tmp_path):
    path = tmp_path / "no.mp4"
    assert refused(video=path) == f"video {path}: No such file or directory; {ADVICE}"


def test_a_directory(refused, tmp_path):
    assert refused(video=tmp_path) == f"video {tmp_path}: Is a directory; {ADVICE}"


def test_an_empty_file(refused, tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert refused(video=path) == f"video {path}: the file is empty (0 bytes); {ADVICE}"


@pytest.mark.parametrize(
    "content", [b"no video at all\n" * 50, np.random.default_rng(0).bytes(5000)], ids=["text", "noise"]
)
def test_not_a_video(refused, tmp_path, content):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    message = refused(video=path)
    assert message == f"video {path}: not a video, or damaged beyond reading; {ADVICE}"


@pytest.mark.parametrize("length", [40, 100, 200, 400, 800])
def test_a_file_cut_off_within_its_index(refused, clip, tmp_path, length):
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:length])
    assert refused(video=path).startswith(f"video {path}: ")


def test_no_such_camera(refused):
    message = refused(video="63")
    assert message == "camera 63: No such file or directory; check that it is plugged in and that you may read it"


def test_a_stream_that_nobody_serves(refused):
    message = refused(video="rtsp://127.0.0.1:1/live")
    assert message == f"video rtsp://127.0.0.1:1/live: Connection refused; {ADVICE}"


def test_an_unknown_network(refused):
    assert refused(network="resnet") == f"tasknets: no network is named 'resnet'; the names are {NETWORKS}"


def test_an_unknown_policy(refused):
    message = refused("--policy", "clever")
    assert "'clever'" in message
    for name in ("blockcopy", "all", "none", "random", "static", "difference"):
        assert name in message


def test_weights_of_another_network(refused, tmp_path):
    path = tmp_path / "vdsr.pth"
    torch.save(tasknets.load("vdsr").model.state_dict(), path)
    message = refused("--weights", path)
    assert str(path) in message
    assert "streets" in message


def test_weights_that_are_no_checkpoint(refused, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"nothing")
    assert str(path) in refused("--weights", path)


def test_weights_that_are_missing(refused, tmp_path):
    assert str(tmp_path / "w.pth") in refused("--weights", tmp_path / "w.pth")


@pytest.mark.parametrize("target", ["0", "-0.1", "1.5", "nan", "inf"])
def test_a_target_outside_of_0_to_1(refused, target):
    message = refused("--target", target)
    assert "target" in message
    assert "(0, 1]" in message


@pytest.mark.parametrize("block", ["0", "-64"])
def test_a_block_that_is_no_size(refused, block):
    assert "block" in refused("--block-size", block)


def test_a_policy_file_that_is_missing_or_no_policy(refused, tmp_path):
    path = tmp_path / "p.pt"
    assert str(path) in refused("--load-policy", path)
    for content in (b"nothing", b"root:x:0:0:root:/root:/bin/sh", b"PK\x03\x04"):
        path.write_bytes(content)
        assert str(path) in refused("--load-policy", path)


@pytest.mark.parametrize("option", ["--output", "--report", "--save-policy"])
def test_an_output_directory_that_is_missing_is_said_before_the_work(refused, tmp_path, option, monkeypatch):
    forbid_work(monkeypatch)
    path = tmp_path / "no" / ("v.mp4" if option == "--output" else "r.json")
    assert refused(option, path) == f"output {path}: directory {path.parent} does not exist; make it first"


@pytest.mark.parametrize("option", ["--output", "--report", "--save-policy"])
def test_an_output_that_is_a_directory_is_said_before_the_work(refused, tmp_path, option, monkeypatch):
    forbid_work(monkeypatch)
    path = tmp_path / ("d.mp4" if option == "--output" else "d.json")
    path.mkdir()
    assert refused(option, path) == f"output {path}: it is a directory; give the path of a file"


@pytest.mark.parametrize("option", ["--output", "--report", "--save-policy"])
def test_an_output_that_is_a_pipe_is_said_before_the_work(refused, tmp_path, option, monkeypatch):
    forbid_work(monkeypatch)
    path = tmp_path / ("p.mp4" if option == "--output" else "p.json")
    os.mkfifo(path)
    assert refused(option, path) == f"output {path}: it is no regular file; give the path of a file"
    assert path.is_fifo()


@pytest.mark.parametrize("option", ["--output", "--report", "--save-policy"])
def test_an_output_that_cannot_be_written_is_said_before_the_work(refused, option, monkeypatch):
    forbid_work(monkeypatch)
    path = Path("/proc") / ("v.mp4" if option == "--output" else "r.json")
    message = refused(option, path)
    assert message.startswith(f"output {path}: ")
    assert message.endswith("; give a path that can be written")


def test_a_container_that_is_not_written(refused, out):
    path = out / "v.gif"
    assert refused("--output", path) == f"output {path}: suffix '.gif' is not one of .mp4, .mov, .mkv; change it"


def test_a_report_that_is_no_json(refused, out):
    assert refused("--report", out / "r.png") == f"output {out / 'r.png'}: suffix '.png' is not one of .json; change it"


def test_an_output_over_the_input(refused, clip):
    message = refused("--output", clip)
    assert message == f"output {clip}: --output and VIDEO are the same file; give two paths"


@pytest.mark.parametrize("prefix", ["file:", "file://"])
def test_an_output_over_an_input_with_a_prefix(refused, clip, prefix):
    message = refused("--output", clip, video=f"{prefix}{clip}")
    assert message == f"output {clip}: --output and VIDEO are the same file; give two paths"


def test_a_relative_path_after_file_is_relative(refused, clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    for prefix in ("file:", "file://"):
        message = refused("--output", clip, video=f"{prefix}{clip.name}")
        assert message == f"output {clip}: --output and VIDEO are the same file; give two paths"


def test_an_output_over_the_policy_that_is_loaded(refused, tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b"policy")
    message = refused("--load-policy", path, "--report", path)
    assert message == f"output {path}: --report and --load-policy are the same file; give two paths"
    assert path.read_bytes() == b"policy"


@pytest.mark.parametrize("inside", [{"policy": {"foo": 1}, "standardise": {}}, {"policy": 5, "standardise": {}}])
def test_a_policy_file_with_something_else_inside(refused, tmp_path, inside):
    path = tmp_path / "p.pt"
    torch.save({"name": "blockcopy", **inside}, path)
    kind = "TypeError" if inside["policy"] == 5 else "KeyError"
    assert refused("--load-policy", path) == (
        f"BlockCopy: {path} holds a policy 'blockcopy' that is damaged or something else ({kind}); "
        "give what BlockCopy.state_dict gave or BlockCopy.save wrote"
    )


def test_a_policy_of_another_network_is_said_before_an_output_is_touched(blockcopy_command, refused, clip, tmp_path):
    path = tmp_path / "p.pt"
    arguments = ("--block-size", 32, "--compare-every", 0, "--frames", 3, "--save-policy", path)
    assert blockcopy_command("run", clip, "--network", "vdsr", *arguments)[0] == 0
    message = refused("--load-policy", path, "--block-size", 32)
    assert message == (
        "BlockCopy: the saved policy is of frames with 1 channels but this one has 3; "
        "load a policy that was saved with the same network"
    )


def test_two_outputs_in_one_file(refused, out):
    path = out / "r.json"
    message = refused("--save-policy", path)
    assert message == f"output {path}: --save-policy and --report are the same file; give two paths"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--frames", "0"),
        ("--compare-every", "-1"),
        ("--threads", "0"),
        ("--threads", "3000000000"),
        ("--max-age", "-1"),
        ("--max-age", "99999999999999999999"),
        ("--block-size", "99999999999999999999"),
        ("--seed", "-1"),
        ("--seed", "99999999999999999999"),
        ("--target", "much"),
        ("--colour",),
    ],
    ids=" ".join,
)
def test_options_that_are_no_values(refused, arguments):
    assert arguments[0] in refused(*arguments)


def test_no_arguments_print_the_help(blockcopy_command):
    code, printed, complained = blockcopy_command()
    assert (code, complained) == (0, "")
    for command in ("run", "demo", "networks", "policies"):
        assert command in printed


def test_a_missing_argument_and_an_unknown_command(blockcopy_command):
    for arguments in (("run",), ("run", "v.mp4"), ("walk",)):
        code, printed, complained = blockcopy_command(*arguments)
        assert (code, printed) == (2, "")
        assert complained.count("\n") == 1


def test_lists(blockcopy_command):
    code, printed, _ = blockcopy_command("networks")
    assert code == 0
    for name in tasknets.names():
        assert name in printed
    code, printed, _ = blockcopy_command("policies")
    assert code == 0
    assert {"blockcopy", "all", "none", "random", "static", "difference"} <= set(printed.split())


def test_without_the_packages_of_the_extra_one_line_says_what_to_install():
    # An import hook that hides them, in a process of its own: the modules must import without them.
    hide = (
        "import sys, importlib.util as u\n"
        "import sparseblock, blockcopy\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('av', 'typer') else found(name, *a)\n"
        "sys.modules.update(av=None, typer=None)\n"
        "import blockcopy.cli\n"
        "blockcopy.cli.main(['networks'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, env=environment(), check=False)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == "blockcopy: the command line needs av, typer; run: pip install 'sparseblock[video]'\n"


def environment() -> dict[str, str]:
    """This process's, with its import path, so that a child finds the same packages."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from blockcopy import session

    def fail(*_, **__):
        raise AssertionError("work began before the outputs were checked")

    monkeypatch.setattr(session.tasknets, "load", fail)
    monkeypatch.setattr(session, "BlockCopy", fail)
    monkeypatch.setattr(session, "VideoReader", fail)
