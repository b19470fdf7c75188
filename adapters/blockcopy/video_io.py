"""Video in and out through PyAV: files, cameras and network streams to RGB frames, RGB frames to H.264."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace

from blockcopy.files import check_writable, part_of
from sparseblock import SparseBlockError

CONTAINERS = (".mp4", ".mov", ".mkv")
LIVE_QUEUE = 4
"""Frames that wait for a live source's reader; older ones are dropped, so that the delay stays bounded."""
OPEN_TIMEOUT, READ_TIMEOUT = 10.0, 10.0


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: its number, from 0, without gaps.
        rgb: uint8 [h, w, 3].
        time: presentation time in seconds from the first frame, or None where the source gives none.
        decode_ms: milliseconds that reading, decoding and the conversion to RGB took, in the reader's thread.
    """

    index: int
    rgb: torch.Tensor
    time: float | None
    decode_ms: float


class VideoReader:
    """Frames of a file, a camera ("0" is the first) or a stream URL, decoded in a thread of its own.

    A file is decoded one frame ahead, and only when asked (`prefetch`), so that decoding need not compete with the
    network for the cores. A live source is read as it comes; frames that wait too long are dropped and counted.

    Attributes:
        source: what was opened. live: whether it is a camera or a stream.
        rate: frames per second, as a Fraction. length: number of frames if the source knows it, else None.
        dropped: frames of a live source that came faster than they were read, and damaged ones.

    Raises:
        SparseBlockError: at once where the source cannot be opened or has no video; while iterating, after the last
            good frame, where it is damaged, cut off, or changes its resolution.
    """

    def __init__(self, source: str, limit: int | None = None):
        self.source, self.limit, self.dropped = source, limit, 0
        self._container = _open(source)
        # What has no end comes at its own pace; a file behind a URL can wait.
        self.live = source.isdigit() or (_is_remote(source) and self._container.duration is None)
        if not self._container.streams.video:
            self._container.close()
            raise SparseBlockError(f"video {source}: it has no video stream; give a file or stream with pictures")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise SparseBlockError(f"video {source}: nothing here decodes its pictures; re-encode it, to H.264 say")
        self._stream.codec_context.thread_count = 1
        if not self.live:
            # Broken pictures of a file are an error that says where; a live stream conceals them and goes on.
            self._stream.codec_context.options = {"err_detect": "explode"}
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.length = self._known_length()
        self._frames: queue.Queue[Frame | Exception | None] = queue.Queue()
        self._turns = threading.Semaphore(0)
        self._asked = self._closed = False
        self._thread = threading.Thread(target=self._produce, name="blockcopy-reader", daemon=True)
        self._thread.start()

    def prefetch(self) -> None:
        """Let the thread decode the next frame of a file now."""
        if not self._asked:
            self._asked = True
            self._turns.release()

    def read(self, timeout: float | None = None) -> Frame | None:
        """The next frame, or None at the end. Raises queue.Empty when `timeout` seconds pass without one."""
        self.prefetch()
        item = self._frames.get(timeout=timeout)
        self._asked = False
        if isinstance(item, Exception):
            raise item
        return item

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def close(self) -> None:
        """Stop reading. The thread closes the source; one that hangs in a dead connection is left to its time-out."""
        self._closed = True
        self._turns.release()
        self._thread.join(timeout=1.0)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _known_length(self) -> int | None:
        if self.live:
            return self.limit
        seconds = (self._container.duration or 0) / av.time_base
        length = self._stream.frames or round(seconds * self.rate) or None
        return min((n for n in (length, self.limit) if n), default=None)

    def _produce(self) -> None:
        try:
            for frame in self._decode():
                if self._closed:
                    return
                if self.live and self._frames.qsize() >= LIVE_QUEUE:
                    self._frames.get()
                    self.dropped += 1
                self._frames.put(frame)
                if frame.index + 1 == self.limit:
                    break
            self._frames.put(None)
        except Exception as error:
            # It belongs to whoever reads, in the order of the frames.
            self._frames.put(error)
        finally:
            self._container.close()

    def _decode(self) -> Iterator[Frame]:
        size, start, index = None, None, 0
        pictures = self._pictures()
        while True:
            if not self.live:
                self._turns.acquire()
            begin = time.perf_counter()
            picture = next(pictures, None)
            if picture is None or self._closed:
                return
            rgb = np.ascontiguousarray(_upright(picture.to_ndarray(format="rgb24"), picture.rotation))
            size = size or rgb.shape
            if rgb.shape != size:
                raise SparseBlockError(
                    f"video {self.source}: frame {index} is {rgb.shape[1]}x{rgb.shape[0]} but the frames before are "
                    f"{size[1]}x{size[0]}; one run holds one resolution: cut the video there, or scale it to one size"
                )
            # In the stream's ticks: pictures flushed out of the decoder lack a time base of their own in PyAV 15.
            at = None if picture.pts is None else float(picture.pts * self._stream.time_base)
            start = at if start is None else start
            at = None if at is None else at - start
            yield Frame(index, torch.from_numpy(rgb), at, 1e3 * (time.perf_counter() - begin))
            index += 1

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Good pictures in order; SparseBlockError after the last one where the source breaks off."""
        count, packets, end, damage = 0, 0, 0.0, None
        try:
            for packet in self._container.demux():
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is not self._stream:
                    continue
                packets += packet.size > 0
                if packet.is_corrupt and damage is None and not self.live:
                    damage = f"data lost near frame {count}"
                try:
                    pictures = packet.decode()
                except av.error.InvalidDataError:
                    if not self.live:
                        raise
                    self.dropped += 1
                    continue
                for picture in pictures:
                    if picture.is_corrupt and not self.live:
                        raise av.error.InvalidDataError(0, "broken picture")
                    count += 1
                    yield picture
        except av.error.FFmpegError as error:
            damage = error.strerror
            for picture in self._remaining():
                count += 1
                yield picture
        if count == 0:
            raise SparseBlockError(f"video {self.source}: no frame of it can be decoded ({damage or 'it is empty'})")
        if self.live:
            if damage is not None:
                raise SparseBlockError(f"video {self.source}: the stream broke off after {count} frames ({damage})")
            return
        damage = damage or self._missing(packets, end)
        if damage is not None:
            raise SparseBlockError(
                f"video {self.source}: it is cut off or damaged after {count} good frames ({damage}); "
                "what came before is processed; get the whole file or re-encode it"
            )

    def _remaining(self) -> list[av.VideoFrame]:
        """Pictures that the decoder still holds when the data after them is broken."""
        try:
            return [p for p in self._stream.codec_context.decode(None) if not p.is_corrupt]
        except av.error.FFmpegError:
            return []

    def _missing(self, packets: int, end: float) -> str | None:
        """What the container promised and did not hold, or None. `end` in seconds."""
        if self._container.format.name == "avi":
            stated = self._stream.frames
            return f"its header states {stated} frames" if packets < stated else None
        stream = self._stream
        if stream.duration:
            stated, start = float(stream.duration * stream.time_base), (stream.start_time or 0) * stream.time_base
        elif "matroska" in self._container.format.name and self._container.duration:
            stated, start = self._container.duration / av.time_base, 0
        else:
            return None
        # mpegts and raw streams state no duration: there the libraries estimate it from what is in the file.
        gap = stated - (end - min(float(start), 0.0))
        return f"its header states {stated:.2f} s" if gap > 0.05 + 1.5 / self.rate else None


class VideoWriter:
    """RGB frames to an H.264 video, beside the target under a temporary name until `close`.

    The path is checked and opened at once; the size is that of the first frame. Odd sizes get one more row or column
    (yuv 4:2:0 needs even ones), a copy of the last. Closing always leaves a valid video of what was written; with no
    frame at all it leaves nothing.

    Raises:
        SparseBlockError: the path cannot be written, or its suffix is not one of `CONTAINERS`.
    """

    def __init__(self, path: str | Path, rate: Fraction, quality: int = 20):
        self.path, self.rate, self._quality = Path(path), Fraction(rate), quality
        check_writable(self.path, CONTAINERS)
        self._part = part_of(self.path, self.path.suffix)
        try:
            self._container = av.open(str(self._part), "w", options={"movflags": "faststart"} if _is_mov(path) else {})
        except av.error.FFmpegError as error:
            raise SparseBlockError(f"output {self.path}: {error.strerror}; give a path that can be written") from None
        self._stream: av.VideoStream | None = None
        self._error: SparseBlockError | None = None
        self._finished = False
        # Ticks fine enough for a source of variable rate (0.1 ms), in which a constant rate is still exact.
        fine = -(-10_000 // self.rate.numerator)
        self._time_base = Fraction(1, self.rate.numerator * fine)
        self._period = self.rate.denominator * fine
        self._last = -self._period

    def write(self, rgb: np.ndarray, time: float | None = None) -> None:
        """Append a frame, uint8 [h, w, 3]. `time` in seconds from the first frame; None: one period after the last."""
        height, width = rgb.shape[:2]
        if height % 2 or width % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._add_stream(rgb.shape[0], rgb.shape[1])
        if time is None:
            self._last += self._period
        else:
            self._last = max(round(time / self._time_base), self._last + 1)
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base, frame.duration = self._last, self._time_base, self._period
        with self._told():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name. Raises SparseBlockError where that fails, or a write did before."""
        if self._error is not None:
            raise self._error
        if self._finished:
            return
        self._finished = True
        with self._told():
            if self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if self._stream is not None:
                os.replace(self._part, self.path)
        self._part.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong outside, such as a full disk, as SparseBlockError; the unfinished file is removed."""
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            self._finished = True
            with suppress(OSError, av.error.FFmpegError):
                self._container.close()
            self._part.unlink(missing_ok=True)
            self._error = SparseBlockError(
                f"output {self.path}: {error.strerror}; the video is lost, make room or give another path"
            )
            raise self._error from None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished:
            self.close()

    def _add_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._time_base
        # One thread: encoding happens within `write` and nowhere else, so that it can be timed apart from the network.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"preset": "veryfast", "crf": str(self._quality)}
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        stream.codec_context.color_range = 1
        return stream


def _is_mov(path: str | Path) -> bool:
    return Path(path).suffix.lower() in (".mp4", ".mov")


def _upright(rgb: np.ndarray, rotation: int) -> np.ndarray:
    """The picture as it is to be seen: phones store it lying. `rotation` in degrees, counter-clockwise."""
    return np.rot90(rgb, round(rotation / 90) % 4)


def local_path(source: str) -> Path:
    """The path that `source` names, with or without the prefix `file:` or `file://`."""
    return Path(source.removeprefix("file://").removeprefix("file:"))


def _is_remote(source: str) -> bool:
    return "://" in source and not source.startswith("file:")


def _open(source: str) -> av.container.InputContainer:
    """The container of a file, camera index or URL."""
    av.logging.set_level(av.logging.PANIC)
    kind, advice = "video", "give a video file, a camera index or a stream URL"
    try:
        if source.isdigit():
            kind, advice = "camera", "check that it is plugged in and that you may read it"
            return _open_camera(int(source))
        if _is_remote(source):
            return av.open(source, timeout=(OPEN_TIMEOUT, READ_TIMEOUT))
        path = local_path(source)
        # A pattern such as frames/%05d.jpg is no file, yet ffmpeg reads it.
        if path.is_file() and path.stat().st_size == 0:
            raise SparseBlockError(f"video {source}: the file is empty (0 bytes); {advice}")
        # ffmpeg itself would read file://v.mp4 as /v.mp4.
        return av.open(f"file:{path}" if source.startswith("file:") else source)
    except av.error.InvalidDataError:
        raise SparseBlockError(f"{kind} {source}: not a video, or damaged beyond reading; {advice}") from None
    except av.error.FFmpegError as error:
        raise SparseBlockError(f"{kind} {source}: {error.strerror}; {advice}") from None


def _open_camera(index: int) -> av.container.InputContainer:
    inputs = {"linux": ("v4l2", f"/dev/video{index}"), "darwin": ("avfoundation", str(index))}
    if sys.platform not in inputs:
        raise SparseBlockError(f"camera {index}: cameras by index work on Linux and macOS; here give a stream URL")
    form, device = inputs[sys.platform]
    try:
        return av.open(device, format=form)
    except ValueError as error:
        if isinstance(error, av.error.FFmpegError):
            raise
        raise SparseBlockError(f"camera {index}: this PyAV was built without {form} input; give a stream URL") from None
