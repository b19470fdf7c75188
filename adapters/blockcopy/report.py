"""What a run did, frame by frame and in total: JSON for programs, a plot for people."""

from __future__ import annotations

import io
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import sparseblock
from blockcopy.files import replace_file, replace_json

SCHEMA = "blockcopy-report/1"
"""Version of the JSON. Within a version keys are added, never renamed, removed or changed in meaning."""
FEWEST_TIMED = 5
"""Frames after the first from which on a speed-up is said: the mean of fewer says nothing."""
PSNR_LIMIT = 100.0
"""dB that stand for "equal": the PSNR of equal pictures is infinite, which JSON has no number for."""
FORCED = ("first frame", "scene cut")
"""Reasons for which all blocks run, whatever the policy says."""


@dataclass(frozen=True)
class Comparison:
    """One frame against the dense network.

    Attributes:
        dense_ms: milliseconds of the dense network on this frame.
        pixel_agreement: share of pixels of the same class; mean_iou: mean over classes, with the dense prediction as
            truth. Of segmentation; else None.
        psnr_db: of the restored luma, at most PSNR_LIMIT. Of restoration; else None.
        box_agreement: share of the boxes of both that have a partner in the other. Of detection; else None.
    """

    dense_ms: float
    pixel_agreement: float | None = None
    mean_iou: float | None = None
    psnr_db: float | None = None
    box_agreement: float | None = None


@dataclass(frozen=True)
class FrameRecord:
    """One frame of the report; the JSON has these names.

    Attributes:
        frame: number from 0. time_s: presentation time in seconds from the first frame, or None.
        reason: why these blocks ran: "policy", or one of FORCED.
        active_fraction: active blocks / all blocks. aged: blocks that are active only because of their age.
        macs: multiply-accumulates of the task network on this frame. policy_macs: those of the policy network.
        policy_ms, train_ms, network_ms: milliseconds of deciding (on the first frame also of making the plan), of
            training the policy, of the task network.
        prepare_ms: frame to network input, and network output to prediction.
        io_ms: reading and decoding, drawing, encoding.
        dense: the comparison with the dense network, on one frame of every k, drawn at random, else None.
    """

    frame: int
    time_s: float | None
    reason: str
    active_fraction: float
    aged: int
    macs: int
    policy_macs: int
    policy_ms: float
    train_ms: float
    network_ms: float
    prepare_ms: float
    io_ms: float
    dense: Comparison | None = None

    @property
    def compute_ms(self) -> float:
        """Network and policy, its training included: what the frames/s of a report count."""
        return self.policy_ms + self.train_ms + self.network_ms


class Report:
    """Frames as they are added, and what follows from them.

    Args:
        run: what was run, as JSON values: video, network, policy, target, ...
        target: the fraction of blocks aimed at, for the plot.
    """

    def __init__(self, run: dict, target: float):
        self.run, self.target = run, target
        self.status = "complete"
        self.dense_macs = 0
        self.frames: list[FrameRecord] = []

    def add(self, record: FrameRecord, dense_macs: int) -> None:
        """Append a frame. `dense_macs` are the multiply-accumulates of one frame of the dense network."""
        self.frames.append(record)
        self.dense_macs = dense_macs

    @property
    def fps(self) -> float:
        """Frames per second of network and policy. The first frame, on which the plan is made, does not count."""
        timed = self.frames[1:] or self.frames
        return 1e3 / max(fmean(f.compute_ms for f in timed), 1e-6) if timed else 0.0

    def totals(self) -> dict:
        """Means over the frames; None where there is nothing to average. Times leave out the first frame, as `fps`."""
        frames, timed = self.frames, self.frames[1:] or self.frames
        compared = [f.dense for f in frames if f.dense is not None]
        dense_ms = _mean([c.dense_ms for c in compared])
        macs, policy_macs = _mean([f.macs for f in frames]), _mean([f.policy_macs for f in frames])
        chosen = [f.active_fraction for f in frames if f.reason not in FORCED]
        return {
            "frames": len(frames),
            "active_fraction": _mean([f.active_fraction for f in frames]),
            "active_fraction_chosen": _mean(chosen),
            "forced_frames": len(frames) - len(chosen),
            "macs": macs,
            "policy_macs": policy_macs,
            "dense_macs": self.dense_macs,
            "macs_vs_dense": (macs + policy_macs) / self.dense_macs if frames else None,
            "policy_ms": _mean([f.policy_ms for f in timed]),
            "train_ms": _mean([f.train_ms for f in timed]),
            "network_ms": _mean([f.network_ms for f in timed]),
            "prepare_ms": _mean([f.prepare_ms for f in timed]),
            "io_ms": _mean([f.io_ms for f in timed]),
            "fps": self.fps if frames else None,
            "compared_frames": len(compared),
            "dense_ms": dense_ms,
            "dense_fps": 1e3 / dense_ms if dense_ms else None,
            "speed_up": dense_ms * self.fps / 1e3 if dense_ms else None,
            "pixel_agreement": _mean([c.pixel_agreement for c in compared]),
            "mean_iou": _mean([c.mean_iou for c in compared]),
            "psnr_db": _mean([c.psnr_db for c in compared]),
            "box_agreement": _mean([c.box_agreement for c in compared]),
        }

    def to_dict(self) -> dict:
        """The whole report as JSON values, all numbers finite."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "run": self.run,
            "environment": environment(),
            "totals": self.totals(),
            "frames": [asdict(f) for f in self.frames],
        }

    def write(self, path: Path) -> None:
        """Write the JSON to `path` and the plot beside it (`plot_path`); each appears whole or not at all."""
        replace_json(path, self.to_dict())
        if self.frames:
            write_figure(plot_path(path), self.plot())

    def plot(self) -> Figure:
        """Activity, time and agreement over the frames."""
        compared = [f for f in self.frames if f.dense is not None]
        rows = 3 if compared else 2
        figure = Figure(figsize=(10, 2.2 * rows + 0.4), dpi=110, layout="constrained")
        axes = figure.subplots(rows, 1, sharex=True)
        figure.suptitle(_title(self.run), fontsize=10, x=0.01, ha="left")
        self._plot_activity(axes[0])
        self._plot_time(axes[1], compared)
        if compared:
            _plot_agreement(axes[2], compared)
        axes[-1].set_xlabel("frame")
        for axis in axes:
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.01)
        return figure

    def _plot_activity(self, axis) -> None:
        numbers = [f.frame for f in self.frames]
        axis.fill_between(
            numbers, [f.active_fraction for f in self.frames], step="mid", color="#d9a400", alpha=0.6, lw=0
        )
        axis.axhline(self.target, color="black", ls="--", lw=1, label=f"target {self.target:g}")
        cuts = [f.frame for f in self.frames if f.reason == "scene cut"]
        if cuts:
            axis.plot(cuts, [1.0] * len(cuts), "v", color="#b3261e", ms=5, label="scene cut")
        axis.set(ylabel="active blocks", ylim=(0, 1.05))
        _legend_above(axis)

    def _plot_time(self, axis, compared: list[FrameRecord]) -> None:
        numbers = [f.frame for f in self.frames]
        parts = {
            "network": [f.network_ms for f in self.frames],
            "policy": [f.policy_ms for f in self.frames],
            "training": [f.train_ms for f in self.frames],
        }
        colors = ("#4c78a8", "#d9a400", "#e45756")
        axis.stackplot(numbers, *parts.values(), labels=parts, colors=colors, step="mid", lw=0)
        tops = sorted(f.compute_ms for f in self.frames[1:] or self.frames)
        top = tops[int(0.98 * (len(tops) - 1))]
        if compared:
            dense_ms = fmean(f.dense.dense_ms for f in compared)
            axis.axhline(dense_ms, color="black", ls="--", lw=1, label=f"dense network {dense_ms:.0f} ms")
            top = max(top, dense_ms)
        # The first frame includes the making of the plan: it may run out of the picture.
        axis.set(ylabel="ms", ylim=(0, 1.25 * top))
        _legend_above(axis)


def plot_path(report: Path) -> Path:
    """Where the plot of the report at `report` lies."""
    return report.with_suffix(".png")


def write_figure(path: Path, figure: Figure) -> None:
    """Write `figure` to `path` as PNG, whole or not at all."""
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    replace_file(path, image.getvalue())


def environment() -> dict:
    """Where and with what a run was made, as JSON values."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sparseblock": sparseblock.__version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _title(run: dict) -> str:
    return f"{Path(run['video']).name}   {run['network']}   policy {run['policy']}   blocks of {run['block_size']} px"


def _plot_agreement(axis, compared: list[FrameRecord]) -> None:
    numbers = [f.frame for f in compared]
    if compared[0].dense.psnr_db is not None:
        axis.plot(numbers, [f.dense.psnr_db for f in compared], ".-", color="#54a24b")
        axis.set_ylabel("dB to the dense network")
        return
    if compared[0].dense.box_agreement is not None:
        axis.plot(numbers, [f.dense.box_agreement for f in compared], ".-", color="#54a24b")
        axis.set_ylabel("boxes as dense")
        axis.set_ylim(-0.02, 1.02)
        return
    axis.plot(numbers, [f.dense.pixel_agreement for f in compared], ".-", color="#54a24b", label="pixel agreement")
    axis.plot(numbers, [f.dense.mean_iou for f in compared], ".-", color="#9467bd", label="mean IoU")
    axis.set_ylabel("against dense")
    axis.set_ylim(min(0.9, min(f.dense.mean_iou for f in compared) - 0.02), 1.01)
    _legend_above(axis)


def _legend_above(axis) -> None:
    axis.legend(loc="lower right", bbox_to_anchor=(1, 0.98), fontsize=8, frameon=False, ncols=4)


def _mean(values: Sequence[float | None]) -> float | None:
    values = [v for v in values if v is not None]
    return fmean(values) if values else None
