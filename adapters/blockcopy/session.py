"""One run: a video through a network under a policy, to a video, a report and a policy file."""

from __future__ import annotations

import copy
import queue
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tasknets
import torch
from tasknets import scores

from blockcopy import BlockCopy, overlay
from blockcopy.files import check_writable
from blockcopy.interrupt import interrupt_once
from blockcopy.report import PSNR_LIMIT, Comparison, FrameRecord, Report, plot_path
from blockcopy.video_io import Frame, VideoReader, VideoWriter, local_path
from sparseblock import SparseBlockError

SMOOTHING = 0.9
"""Weight of the past in the frames/s that is drawn into the video."""


@dataclass(frozen=True)
class Settings:
    """What `blockcopy run` takes; see there. Paths are None where nothing is to be read or written.

    `max_age` and `compare_every` 0: never.
    """

    video: str
    network: str
    weights: Path | None = None
    target: float = 0.3
    block_size: int = 128
    policy: str = "blockcopy"
    output: Path | None = None
    report: Path | None = None
    frames: int | None = None
    compare_every: int = 10
    seed: int = 0
    max_age: int = 64
    threads: int | None = None
    save_policy: Path | None = None
    load_policy: Path | None = None
    freeze: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its report, the files written, and why it ended early, if it did."""

    report: Report
    written: list[Path]
    problem: SparseBlockError | None
    interrupted: bool


class StopSignal:
    """Turns the first Ctrl-C (or SIGTERM) into a flag, so that the frame in work and the outputs are finished.

    The second one interrupts at once (Ctrl-C) or ends the process (SIGTERM). From then on, also after the block,
    Ctrl-C is ignored: what was begun gets closed or removed.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self.stopped:
            self.close()
        for number, handler in self._before.items():
            if not self.stopped or number != signal.SIGINT:
                signal.signal(number, handler)

    def close(self) -> None:
        """Ignore Ctrl-C from here on, while outputs are closed."""
        if self._before:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _stop(self, *_: object) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, interrupt_once)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class DenseNetwork:
    """The network as PyTorch runs it, dense, in channels-last: what a run is compared with."""

    def __init__(self, network: tasknets.TaskNetwork):
        self._model = copy.deepcopy(network.model).to(memory_format=torch.channels_last)
        self._warm = False

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, float]:
        """(output, milliseconds) for the input `x`, [1, c, h, w]."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            if not self._warm:
                self._model(x)
                self._warm = True
            begin = time.perf_counter()
            output = self._model(x)
            return output, 1e3 * (time.perf_counter() - begin)


def is_compared(frame: int, every: int, seed: int) -> bool:
    """Whether `frame`, counted from 0, is the one of its stretch of `every` frames that is compared.

    It is drawn at random in each stretch: every k-th frame would be of one phase where what a policy runs has a period.
    """
    stretch, place = divmod(frame, every)
    return random.Random(f"{seed} {stretch}").randrange(every) == place


def compare(network: tasknets.TaskNetwork, prediction: Any, dense: Any, dense_ms: float) -> Comparison:
    """`prediction` against the dense network's prediction `dense`, both as `network.predict` returns them."""
    if network.task == "detection":
        return Comparison(dense_ms, box_agreement=scores.detection_agreement(prediction, dense))
    if network.task == "restoration":
        return Comparison(dense_ms, psnr_db=min(float(scores.psnr(prediction, dense)), PSNR_LIMIT))
    return Comparison(
        dense_ms,
        pixel_agreement=float(scores.pixel_agreement(prediction, dense)),
        mean_iou=float(scores.mean_iou(prediction, dense, len(network.class_names))),
    )


def run(settings: Settings, on_start: Callable[[VideoReader], None], on_frame: Callable[[Report], None]) -> Outcome:
    """Run `settings`; outputs are finished and valid also where the video breaks off or the run is interrupted.

    Args:
        on_start: called with the opened video before the first frame; `on_frame` with the report so far after each.

    Raises:
        SparseBlockError: before any work, and without leaving a file, for bad settings; when not one frame was good.
    """
    _check_outputs(settings)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    network = tasknets.load(settings.network, settings.weights)
    video = _video_of(settings, network)
    described = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    report = Report({**described, "task": network.task}, settings.target)
    problem, written = None, []
    with ExitStack() as outputs:
        reader = outputs.enter_context(VideoReader(settings.video, settings.frames))
        writer = outputs.enter_context(VideoWriter(settings.output, reader.rate)) if settings.output else None
        stop = outputs.enter_context(StopSignal())
        worker = _Worker(settings, network, video, reader, writer, report)
        on_start(reader)
        try:
            while not stop.stopped and (frame := _next(reader, stop)) is not None:
                worker.process(frame)
                on_frame(report)
        except SparseBlockError as error:
            if not report.frames:
                raise
            problem = error
            report.status = f"stopped: {error}"
        if stop.stopped:
            stop.close()
            if not report.frames:
                raise KeyboardInterrupt("interrupted before the first frame was done; nothing is written")
            report.status = "interrupted"
        # While the signals are still held: what was done gets written, each output whatever became of the others.
        report.run["dropped_frames"] = reader.dropped
        finish = {
            settings.output: writer and writer.close,
            settings.report: lambda: report.write(settings.report),
            settings.save_policy: lambda: video.save(settings.save_policy),
        }
        for path in filter(None, finish):
            try:
                finish[path]()
                written += [path, plot_path(path)] if path is settings.report else [path]
            except SparseBlockError as error:
                problem = problem or error
    return Outcome(report, written, problem, stop.stopped)


class _Worker:
    """What happens to one frame: the network, alone on the cores, then drawing while the next frame decodes."""

    def __init__(
        self,
        settings: Settings,
        network: tasknets.TaskNetwork,
        video: BlockCopy,
        reader: VideoReader,
        writer: VideoWriter | None,
        report: Report,
    ):
        self.settings, self.network, self.video = settings, network, video
        self.reader, self.writer, self.report = reader, writer, report
        self.dense = DenseNetwork(network) if settings.compare_every else None
        self._ms: float | None = None

    def process(self, frame: Frame) -> None:
        size = tuple(frame.rgb.shape[:2])
        begin = time.perf_counter()
        x = self.network.preprocess(frame.rgb)
        prepare = time.perf_counter() - begin
        output = self.video(x)
        stats = self.video.stats
        begin = time.perf_counter()
        prediction = self.network.predict(output, size)
        prepare += time.perf_counter() - begin
        comparison = None
        if self.dense is not None and is_compared(frame.index, self.settings.compare_every, self.settings.seed):
            dense, dense_ms = self.dense(x)
            comparison = compare(self.network, prediction, self.network.predict(dense, size), dense_ms)
        self.reader.prefetch()
        begin = time.perf_counter()
        if self.writer is not None:
            self.writer.write(self._draw(frame.rgb, x, prediction, stats), frame.time)
        write = time.perf_counter() - begin
        record = FrameRecord(
            frame=frame.index,
            time_s=frame.time,
            reason=stats.reason,
            active_fraction=stats.active_fraction,
            aged=stats.aged,
            macs=stats.macs,
            policy_macs=stats.policy_macs,
            policy_ms=stats.policy_ms,
            train_ms=stats.train_ms,
            network_ms=stats.network_ms,
            prepare_ms=1e3 * prepare,
            io_ms=frame.decode_ms + 1e3 * write,
            dense=comparison,
        )
        self.report.add(record, self.video.plan.macs)

    def _draw(self, rgb: torch.Tensor, x: torch.Tensor, prediction: Any, stats) -> np.ndarray:
        ms = stats.policy_ms + stats.train_ms + stats.network_ms
        # The first frame makes the plan; its time says nothing about those to come.
        self._ms = ms if self._ms is None or stats.frame == 1 else SMOOTHING * self._ms + (1 - SMOOTHING) * ms
        text = f"frame {stats.frame}   active {100 * stats.active_fraction:.0f} %   {1e3 / self._ms:.3g} frames/s"
        return overlay.draw(rgb, x, prediction, self.video.active, self.video.plan.grid, self.network, text)


def _next(reader: VideoReader, stop: StopSignal) -> Frame | None:
    """The next frame; None at the end, or where a stop is wanted while a live source says nothing."""
    while not stop.stopped:
        try:
            return reader.read(timeout=0.2)
        except queue.Empty:
            continue
    return None


def _video_of(settings: Settings, network: tasknets.TaskNetwork) -> BlockCopy:
    video = BlockCopy(
        network.model,
        task=network.task,
        target=settings.target,
        block_size=settings.block_size,
        policy=settings.policy,
        seed=settings.seed,
        max_age=settings.max_age or None,
        read=network.predict if network.task == "detection" else None,
    )
    if settings.load_policy is not None:
        video.load(settings.load_policy)
    if settings.freeze:
        video.freeze()
    return video


def _check_outputs(settings: Settings) -> None:
    """SparseBlockError unless every output can be written, and none over another or over an input."""
    named = {"--output": settings.output, "--report": settings.report, "--save-policy": settings.save_policy}
    if settings.report is not None:
        check_writable(settings.report, (".json",))
        named["the plot of --report"] = plot_path(settings.report)
    inputs = {
        "VIDEO": local_path(settings.video),
        "--weights": settings.weights,
        "--load-policy": settings.load_policy,
    }
    taken = {path.resolve(): name for name, path in inputs.items() if path is not None}
    for name, path in named.items():
        if path is None:
            continue
        check_writable(path)
        other = taken.setdefault(path.resolve(), name)
        # A policy that learns on may go back to where it came from: it is read before anything is written.
        if other != name and (name, other) != ("--save-policy", "--load-policy"):
            raise SparseBlockError(f"output {path}: {name} and {other} are the same file; give two paths")
