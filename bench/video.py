"""Real clips: BlockCopy beside what else the same work could buy, frame by frame against the dense network.

The table of the README comes from here. All methods take turns, CHUNK frames each: the machine treats them alike, and
each runs with its own data in the caches, as it would alone.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import av
import tasknets
import torch
import typer
from blockcopy import BlockCopy
from blockcopy.files import replace_json
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tasknets import scores

from bench.timing import keep_freed_memory, machine

CHUNK = 25


def video(
    clips: Annotated[list[Path], typer.Argument(help="video files")],
    network: Annotated[str, typer.Option(help="task network")] = "espnet",
    weights: Annotated[Path | None, typer.Option(help="its weights")] = None,
    target: Annotated[float, typer.Option(help="target share of active blocks")] = 0.3,
    block_size: Annotated[int, typer.Option(help="side of a block in pixels")] = 128,
    frames: Annotated[int, typer.Option(help="at most this many frames of each clip")] = 400,
    output: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
) -> None:
    """Compare BlockCopy with a frame difference, a lower frame rate and the previous frame, at the same MACs."""
    keep_freed_memory()
    results = [compare(clip, network, weights, target, block_size, frames) for clip in clips]
    record = {"suite": "video", "date": datetime.date.today().isoformat(), "machine": machine(), "clips": results}
    show(record)
    if output:
        replace_json(output, record)


def compare(clip: Path, network: str, weights: Path | None, target: float, block_size: int, frames: int) -> dict:
    """All methods over one clip."""
    task = tasknets.load(network, weights)
    dense_model = tasknets.load(network, weights).model.to(memory_format=torch.channels_last)
    runs = {
        policy: BlockCopy(task.model, task=task.task, target=target, block_size=block_size, policy=policy, seed=0)
        for policy in ("blockcopy", "difference")
    }
    score = scores.pixel_agreement if task.task == "segmentation" else scores.psnr
    quality: dict[str, list[float]] = {name: [] for name in (*runs, "lower frame rate", "previous frame")}
    seconds: dict[str, list[float]] = {name: [] for name in ("dense", *runs)}
    deciding: dict[str, list[float]] = {name: [] for name in runs}
    active: dict[str, list[float]] = {name: [] for name in runs}
    macs: dict[str, list[int]] = {name: [] for name in runs}
    previous = held = None
    credit = 1.0
    with av.open(str(clip)) as container, torch.inference_mode():
        pictures = itertools.islice(container.decode(video=0), frames)
        for chunk in batched(track(pictures, description=clip.stem, total=frames), CHUNK):
            size = (chunk[0].height, chunk[0].width)
            inputs = [task.preprocess(torch.from_numpy(picture.to_ndarray(format="rgb24"))) for picture in chunk]
            truths = []
            for frame in inputs:
                start = time.perf_counter()
                output = dense_model(frame.contiguous(memory_format=torch.channels_last))
                seconds["dense"].append(time.perf_counter() - start)
                truths.append(task.predict(output, size).clone())
            for name, run in runs.items():
                for frame, dense in zip(inputs, truths, strict=True):
                    out = run(frame)
                    stats = run.stats
                    deciding[name].append((stats.policy_ms + stats.train_ms) / 1e3)
                    seconds[name].append(stats.network_ms / 1e3 + deciding[name][-1])
                    active[name].append(stats.active_fraction)
                    macs[name].append(stats.macs + stats.policy_macs)
                    if len(macs[name]) > 1:
                        quality[name].append(float(score(task.predict(out, size), dense)))
            for dense, spent in zip(truths, macs["blockcopy"][-len(truths) :], strict=True):
                # The lower frame rate spends what BlockCopy spends: it runs when it has saved up one dense frame.
                credit += spent / runs["blockcopy"].plan.macs if previous is not None else 0.0
                if credit >= 1.0:
                    credit, held = credit - 1.0, dense
                if previous is not None:
                    quality["lower frame rate"].append(float(score(held, dense)))
                    quality["previous frame"].append(float(score(previous, dense)))
                previous = dense
    total = runs["blockcopy"].plan.macs
    return {
        "clip": clip.stem,
        "size": [size[1], size[0]],
        "network": network,
        "target": target,
        "block_size": block_size,
        "frames": len(seconds["dense"]),
        "score": "pixel agreement with dense" if task.task == "segmentation" else "PSNR to dense, dB",
        "dense_ms": statistics.median(seconds["dense"]) * 1e3,
        "methods": {
            name: {
                "score": statistics.fmean(finite(values)),
                **(
                    {
                        "active": statistics.fmean(active[name][1:]),
                        "macs": statistics.fmean(macs[name]) / total,
                        "mean_ms": statistics.fmean(seconds[name]) * 1e3,
                        "policy": statistics.fmean(deciding[name]) / statistics.fmean(seconds["dense"]),
                        "speedup": statistics.fmean(seconds["dense"]) / statistics.fmean(seconds[name]),
                    }
                    if name in runs
                    else {}
                ),
            }
            for name, values in quality.items()
        },
    }


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of up to `size` items."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def finite(values: list[float]) -> list[float]:
    """PSNR of identical pictures is infinite: counted as 100 dB."""
    return [min(value, 100.0) for value in values]


def show(record: dict) -> None:
    """Print one row for each clip and method."""
    m = record["machine"]
    out = Table(title=f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, {record['date']}")
    for column in ("clip", "network", "method"):
        out.add_column(column, no_wrap=True)
    for column in ("active", "MACs", "frames/s", "speed-up", "policy / dense time", "score"):
        out.add_column(column, justify="right")
    for clip in record["clips"]:
        out.add_row(
            clip["clip"], clip["network"], "dense", "1", "1", f"{1e3 / clip['dense_ms']:.1f}", "1", "", clip["score"]
        )
        for name, row in clip["methods"].items():
            ran = "active" in row
            out.add_row(
                "",
                "",
                name,
                f"{row['active']:.3f}" if ran else "",
                f"{row['macs']:.3f}" if ran else "",
                f"{1e3 / row['mean_ms']:.1f}" if ran else "",
                f"{row['speedup']:.2f}" if ran else "",
                f"{row['policy']:.3f}" if ran else "",
                f"{row['score']:.4f}" if "agreement" in clip["score"] else f"{row['score']:.1f}",
            )
        out.add_section()
    Console(width=max(Console().width, 150)).print(out)
