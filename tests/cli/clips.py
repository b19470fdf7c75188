"""Small videos for the tests: made, cut short, read back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


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


def decode(path: Path) -> tuple[list[np.ndarray], Fraction]:
    """(frames uint8 [h, w, 3], frames per second) of a video, read without blockcopy."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return frames, container.streams.video[0].average_rate
