"""Ctrl-C: the outputs are whole up to the last frame, and the exit code says so."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from blockcopy import demo, session
from clips import decode, encode, street
from test_bad_input import environment

# The second Ctrl-C comes within a frame, the third while what was begun is closed.
PROGRAM = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from blockcopy import cli, session, video_io

process = session._Worker.process
def twice(*arguments):
    process(*arguments)  # so that there is a frame to write
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

leave = video_io.VideoWriter.__exit__
def leave_interrupted(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    leave(*arguments)

session._Worker.process = twice
video_io.VideoWriter.__exit__ = leave_interrupted
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_a_signal_in_the_middle(tmp_path, out, number):
    clip = encode(tmp_path / "long.mp4", street(3000, 64, 96))
    terminal, screen = pty.openpty()
    command = [sys.executable, "-m", "blockcopy.cli", "run", str(clip), "--network", "streets", "--block-size", "32"]
    command += [
        "--output",
        str(out / "v.mp4"),
        "--report",
        str(out / "r.json"),
        "--compare-every",
        "0",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=screen, env=environment())
    os.close(screen)
    seen = wait_for(terminal, rb"\b[1-9]\d*/3000")
    process.send_signal(number)
    seen += read_all(terminal)
    assert process.wait(timeout=60) == 130
    frames, _ = decode(out / "v.mp4")
    report = json.loads((out / "r.json").read_text())
    assert 0 < len(frames) == report["totals"]["frames"] < 3000
    assert report["status"] == "interrupted"
    told = f"blockcopy: interrupted after {len(frames)} frames; what is written is complete up to there"
    assert seen.decode().rstrip().endswith(told)
    assert "Traceback" not in seen.decode()
    assert sorted(p.name for p in out.iterdir()) == ["r.json", "r.png", "v.mp4"]


def test_the_frame_in_work_is_finished(clip, out):
    settings = session.Settings(
        video=str(clip), network="streets", block_size=32, compare_every=0, output=out / "v.mp4", report=out / "r.json"
    )

    def on_frame(report):
        if len(report.frames) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    outcome = session.run(settings, lambda reader: None, on_frame)
    assert outcome.interrupted
    assert outcome.problem is None
    assert outcome.written == [out / "v.mp4", out / "r.json", out / "r.png"]
    assert len(outcome.report.frames) == len(decode(out / "v.mp4")[0]) == 5


def test_a_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), session.StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.stopped
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_signals_in_quick_succession_leave_the_video_whole(tmp_path, out):
    clip = encode(tmp_path / "long.mp4", street(3000, 64, 96))
    command = [sys.executable, "-c", PROGRAM, "run", str(clip), "--network", "streets", "--block-size", "32"]
    command += ["--output", str(out / "v.mp4"), "--compare-every", "0"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=120)
    assert (ran.returncode, ran.stderr) == (130, "blockcopy: interrupted\n")
    assert [p.name for p in out.iterdir()] == ["v.mp4"]
    assert len(decode(out / "v.mp4")[0]) == 1


@pytest.mark.parametrize("command", ["run", "demo", "networks"])
def test_an_interrupt_while_torch_is_imported(command):
    program = (
        "import os, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from blockcopy.cli import main\n"
        "main()\n"
    )
    arguments = [sys.executable, "-c", program, command]
    ran = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "blockcopy: interrupted\n")


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_termination_ends_the_process(first):
    program = (
        "import os, signal\n"
        "from blockcopy import session\n"
        "with session.StopSignal() as stop:\n"
        f"    os.kill(os.getpid(), signal.{first})\n"
        "    assert stop.stopped\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGTERM, b"", b"")


def test_an_interrupt_before_the_first_frame_leaves_nothing(blockcopy_command, clip, out, monkeypatch):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(session, "_Worker", interrupted)
    code, printed, complained = blockcopy_command("run", clip, "--network", "streets", "--output", out / "v.mp4")
    assert (code, printed) == (130, "")
    assert complained == "blockcopy: interrupted before the first frame was done; nothing is written\n"
    assert list(out.iterdir()) == []


def test_an_interrupt_while_the_network_loads_leaves_nothing(blockcopy_command, clip, out, monkeypatch):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(session.tasknets, "load", interrupted)
    assert blockcopy_command("run", clip, "--network", "streets", "--output", out / "v.mp4") == (
        130,
        "",
        "blockcopy: interrupted\n",
    )
    assert list(out.iterdir()) == []


def test_an_interrupted_demo_shows_what_it_has(blockcopy_command, out, monkeypatch):
    write = demo.VideoWriter.write
    pictures = []

    def interrupt(writer, picture):
        write(writer, picture)
        pictures.append(picture)
        if len(pictures) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(demo.VideoWriter, "write", interrupt)
    code, printed, complained = blockcopy_command(
        "demo", "--height", 96, "--width", 128, "--block-size", 32, "--threads", 1, "--output-dir", out
    )
    assert code == 130
    assert "BlockCopy" in printed
    assert complained == "blockcopy: interrupted after 3 frames; what is written is complete up to there\n"
    assert len(decode(out / "demo.mp4")[0]) == 3


def test_a_fault_of_the_program_is_not_hidden_and_still_closes_the_video(clip, out, monkeypatch):
    settings = session.Settings(
        video=str(clip), network="streets", block_size=32, compare_every=0, output=out / "v.mp4"
    )

    def on_frame(report):
        if len(report.frames) == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.run(settings, lambda reader: None, on_frame)
    assert len(decode(out / "v.mp4")[0]) == 3
    assert [p.name for p in out.iterdir()] == ["v.mp4"]


def wait_for(terminal: int, pattern: bytes) -> bytes:
    seen = b""
    while not re.search(pattern, seen):
        seen += os.read(terminal, 4096)
    return seen


def read_all(terminal: int) -> bytes:
    seen = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            return seen
        if not data:
            return seen
        seen += data
