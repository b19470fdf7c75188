"""The demo: ways to spend fewer operations on a video, side by side on a synthetic street with ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import numpy as np
import tasknets
import torch
from matplotlib.figure import Figure
from rich.table import Table
from tasknets import scores
from tasknets.scenes import SceneGenerator

import sparseblock
from blockcopy import BlockCopy, overlay
from blockcopy.files import check_writable
from blockcopy.report import FEWEST_TIMED, write_figure
from blockcopy.session import DenseNetwork, StopSignal
from blockcopy.video_io import VideoWriter
from sparseblock import BlockGrid, SparseBlockError

RATE = Fraction(25)
MOSAIC = ("dense", "lower frame rate", "difference", "BlockCopy")
"""Contenders shown in the video, by rows."""
MOST_PIXELS = 7680 * 4320
"""Of a frame: a generous bound on what five contenders and the mosaic hold in memory."""
WINDOW = 20
"""Frames that are scored together for the course over time."""
HELD_OUT = 1_000_000
"""Scenes from this seed on were not used to train the network."""

COLORS = {
    "dense": "#333333",
    "lower frame rate": "#7f7f7f",
    "random": "#4c78a8",
    "difference": "#54a24b",
    "BlockCopy": "#d9a400",
}


@dataclass(frozen=True)
class Settings:
    """What `blockcopy demo` takes; see there."""

    frames: int
    seed: int
    camera: str
    height: int
    width: int
    target: float
    block_size: int
    threads: int | None
    output_dir: Path


@dataclass(frozen=True)
class Step:
    """What a contender made of one frame: classes [h, w], active bool [rows, cols], MACs, milliseconds."""

    prediction: torch.Tensor
    active: torch.Tensor
    macs: int
    ms: float


@dataclass
class Tally:
    """A contender's frames."""

    predictions: list[torch.Tensor] = field(default_factory=list)
    active: list[float] = field(default_factory=list)
    macs: list[int] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def add(self, step: Step) -> None:
        self.predictions.append(step.prediction.to(torch.uint8))
        self.active.append(float(step.active.float().mean()))
        self.macs.append(step.macs)
        self.ms.append(step.ms)

    @property
    def fps(self) -> float:
        """Frames per second of network and policy, without the first frame, on which plans are made."""
        return 1e3 / max(fmean(self.ms[1:]), 1e-6)


@dataclass(frozen=True)
class Result:
    """The demo's outcome: rows by contender, frames done (fewer than asked for after Ctrl-C), the files written."""

    rows: list[dict]
    frames: int
    video: Path
    picture: Path


class _Dense:
    """Every frame, or every `period`-th with the prediction repeated in between, by PyTorch in channels-last."""

    def __init__(self, network: tasknets.TaskNetwork, macs: int, grid: BlockGrid, period: int = 1):
        self._network, self._run, self._macs, self._period = network, DenseNetwork(network), macs, period
        self._all = torch.ones(grid.rows, grid.cols, dtype=torch.bool)
        self._held: torch.Tensor | None = None

    def __call__(self, index: int, x: torch.Tensor, size: tuple[int, int]) -> Step:
        if index % self._period:
            return Step(self._held, ~self._all, 0, 0.0)
        output, ms = self._run(x)
        self._held = self._network.predict(output, size)
        return Step(self._held, self._all, self._macs, ms)


class _Sparse:
    """BlockCopy's runtime under one of its policies."""

    def __init__(self, network: tasknets.TaskNetwork, settings: Settings, policy: str):
        self._network = network
        self._video = BlockCopy(
            network.model,
            task=network.task,
            target=settings.target,
            block_size=settings.block_size,
            policy=policy,
            seed=settings.seed,
        )

    def __call__(self, index: int, x: torch.Tensor, size: tuple[int, int]) -> Step:
        output, stats = self._video(x), self._video.stats
        ms = stats.policy_ms + stats.train_ms + stats.network_ms
        macs = stats.macs + stats.policy_macs
        return Step(self._network.predict(output, size), self._video.active.clone(), macs, ms)


def run(settings: Settings, on_step: Callable[[int, int, float, float], None]) -> Result:
    """Run the demo and write its video and picture to `output_dir`.

    Args:
        on_step: called after each frame with (frames done, all frames, BlockCopy's frames/s, its active fraction).

    Raises:
        SparseBlockError: for bad settings, before the first frame and without leaving a file or directory.
    """
    pixels = settings.height * settings.width
    if pixels > MOST_PIXELS:
        raise SparseBlockError(
            f"demo: height {settings.height} x width {settings.width} is {pixels:,} pixels; "
            f"at most {MOST_PIXELS:,} (4320 x 7680); give a smaller size"
        )
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    scenes = SceneGenerator(HELD_OUT + settings.seed, settings.height, settings.width, camera=settings.camera)
    network = tasknets.load("streets")
    contenders, grid, dense_macs = _contenders(settings, network, network.preprocess(scenes[0].frame))
    # Now that the settings are known to be good.
    try:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SparseBlockError(f"output {settings.output_dir}: {error.strerror}; give another directory") from None
    picture = settings.output_dir / "demo.png"
    check_writable(picture)
    tallies = {name: Tally() for name in contenders}
    truth = []
    with VideoWriter(settings.output_dir / "demo.mp4", RATE) as writer, StopSignal() as stop:
        for index in range(settings.frames):
            if stop.stopped and index > 1:
                break
            scene = scenes[index]
            truth.append(scene.labels)
            x = network.preprocess(scene.frame)
            tiles = []
            for name, contender in contenders.items():
                step = contender(index, x, tuple(scene.labels.shape))
                tallies[name].add(step)
                if name in MOSAIC:
                    outlined = step.active & ~step.active.all()
                    text = f"{name}   active {100 * tallies[name].active[-1]:.0f} %"
                    tiles.append(overlay.draw(scene.frame, x, step.prediction, outlined, grid, network, text))
            mosaic = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
            writer.write(mosaic)
            shown = tallies["BlockCopy"]
            on_step(index + 1, settings.frames, shown.fps if index else 0.0, shown.active[-1])
    truth, classes = torch.stack(truth), len(network.class_names)
    rows = [
        {
            "name": name,
            "mean_iou": scores.mean_iou(torch.stack(tally.predictions), truth, classes),
            "active_fraction": fmean(tally.active),
            "macs": fmean(tally.macs),
            "macs_vs_dense": fmean(tally.macs) / dense_macs,
            "fps": tally.fps,
        }
        for name, tally in tallies.items()
    ]
    write_figure(picture, _plot(mosaic, rows, tallies, truth, classes))
    return Result(rows, len(truth), writer.path, picture)


def table(result: Result) -> Table:
    """The rows of `result` for people."""
    view = Table(box=None)
    for title in ("", "mIoU", "active", "GMAC", "MACs", "frames/s", "speed-up"):
        view.add_column(title, justify="right" if title else "left", no_wrap=True)
    dense = result.rows[0]
    for row in result.rows:
        view.add_row(
            row["name"],
            f"{100 * row['mean_iou']:.2f} %",
            f"{100 * row['active_fraction']:.1f} %",
            f"{row['macs'] / 1e9:.2f}",
            f"{100 * row['macs_vs_dense']:.1f} %",
            f"{row['fps']:.1f}",
            f"{row['fps'] / dense['fps']:.2f}x" if result.frames > FEWEST_TIMED else "-",
        )
    return view


def _contenders(
    settings: Settings, network: tasknets.TaskNetwork, x: torch.Tensor
) -> tuple[dict[str, Callable[[int, torch.Tensor, tuple[int, int]], Step]], BlockGrid, int]:
    """(contenders by name, grid of the blocks, MACs of a dense frame)."""
    plan = sparseblock.compile(network.model, x, settings.block_size)
    sparse = {
        "random": _Sparse(network, settings, "random"),
        "difference": _Sparse(network, settings, "difference"),
        "BlockCopy": _Sparse(network, settings, "blockcopy"),
    }
    dense = {
        "dense": _Dense(network, plan.macs, plan.grid),
        "lower frame rate": _Dense(network, plan.macs, plan.grid, period=round(1 / settings.target)),
    }
    return dense | sparse, plan.grid, plan.macs


def _plot(mosaic: np.ndarray, rows: list[dict], tallies: dict[str, Tally], truth: torch.Tensor, classes: int) -> Figure:
    """The last picture of the video; what the operations bought; how that went over time."""
    figure = Figure(figsize=(11, 9.6), dpi=110, layout="constrained")
    layout = figure.add_gridspec(2, 2, height_ratios=(1.5, 1), width_ratios=(1, 1.5))
    picture, bought, course = (figure.add_subplot(layout[cell]) for cell in ((0, slice(None)), (1, 0), (1, 1)))
    picture.imshow(mosaic, aspect="equal")
    picture.axis("off")
    starts = range(0, max(len(truth) - WINDOW // 2, 1), WINDOW)
    for row in rows:
        name, color = row["name"], COLORS[row["name"]]
        bought.plot(100 * row["macs_vs_dense"], 100 * row["mean_iou"], "o", color=color, ms=9, alpha=0.9)
        predictions = torch.stack(tallies[name].predictions)
        windows = [(predictions[i : i + WINDOW], truth[i : i + WINDOW]) for i in starts]
        scored = [100 * scores.mean_iou(made, true, classes) for made, true in windows]
        course.plot([i + WINDOW / 2 for i in starts], scored, ".-", color=color, lw=1.4, label=name)
    bought.set(xlabel="MACs, % of dense", ylabel="mean IoU to the ground truth, %", xlim=(0, 108))
    bought.margins(y=0.15)
    course.set(xlabel=f"frame, by {WINDOW}", ylabel="mean IoU, %")
    figure.legend(*course.get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False)
    for axis in (bought, course):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
