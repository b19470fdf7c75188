"""Small synthetic clips, whole and broken, and the command line within the test's own process."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from blockcopy import cli


def encode(path: Path, frames: list[np.ndarray], rate: Fraction = Fraction(25), options: dict | None = None) -> Path:
    """Write `frames`, uint8 [h, w, 3], as H.264 with a key frame every 5; even sizes only."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", 5
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def street(count: int, height: int = 96, width: int = 128, seed: int = 0) -> list[np.ndarray]:
    """A textured still background with a bright square that moves 4 pixels a frame."""
    rng = np.random.default_rng(seed)
    background = rng.integers(40, 200, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    background = background.repeat(8, 0).repeat(8, 1)[:height, :width]
    frames = []
    for index in range(count):
        frame = background.copy()
        left = 4 * index % max(width - 16, 1)
        frame[height // 3 : height // 3 + 16, left : left + 16] = (250, 240, 30)
        frames.append(frame)
    return frames


def cut(source: Path, target: Path, share: float) -> Path:
    """`target` holds the first `share` of the bytes of `source`."""
    data = source.read_bytes()
    target.write_bytes(data[: int(share * len(data))])
    return target


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


def decode(path: Path) -> tuple[list[np.ndarray], Fraction]:
    """(frames uint8 [h, w, 3], frames per second) of a video, read without blockcopy."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return frames, container.streams.video[0].average_rate
