"""Small synthetic clips, whole and broken, and the command line within the test's own process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blockcopy import cli
from clips import encode, street


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """20 frames of 96x128 at 25 frames/s, in a directory of their own."""
    (tmp_path / "in").mkdir()
    return encode(tmp_path / "in" / "clip.mp4", street(20), options={"movflags": "faststart"})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty directory for outputs: what a command leaves is all that is in it."""
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def blockcopy_command(capsys: pytest.CaptureFixture[str]):
    """Run `blockcopy` with arguments; gives (exit code, stdout, stderr)."""
    threads = torch.get_num_threads()

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    yield run
    torch.set_num_threads(threads)
