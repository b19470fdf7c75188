"""Real clips: exact and bounded plans beside the dense network, frame by frame."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import av
import tasknets
import torch
import typer
from blockcopy.files import replace_json
from rich.console import Console
from rich.table import Table

import sparseblock
from bench.timing import machine


def exact(
    clips: Annotated[list[Path], typer.Argument(help="video files")],
    network: Annotated[str, typer.Option(help="task network")] = "espnet",
    weights: Annotated[Path | None, typer.Option(help="its weights")] = None,
    tolerance: Annotated[list[float] | None, typer.Option(help="of bounded plans; several")] = None,
    frames: Annotated[int, typer.Option(help="at most this many frames of each clip")] = 100,
    output: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
) -> None:
    """Compare exact and bounded plans with the dense network: MACs, time, error."""
    results = [compare(clip, network, weights, tolerance or [], frames) for clip in clips]
    record = {"suite": "exact", "date": datetime.date.today().isoformat(), "machine": machine(), "clips": results}
    show(record)
    if output:
        replace_json(output, record)


@torch.inference_mode()
def compare(clip: Path, network: str, weights: Path | None, tolerances: list[float], frames: int) -> dict:
    """Every method over one clip, in one loop; the first frame, which runs whole, does not count."""
    task = tasknets.load(network, weights)
    dense = tasknets.load(network, weights).model.to(memory_format=torch.channels_last)
    shown = pictures(clip, task.preprocess, frames)
    first = next(shown)
    whole = sparseblock.compile(task.model, first, block_size=64)
    plans = {"exact": None, "exact, same bits held back": 0.0} | {f"bounded, {t:g}": t for t in tolerances}
    plans = {name: sparseblock.compile(task.model, first, mode="exact", tolerance=t) for name, t in plans.items()}
    states = {name: plan.new_state() for name, plan in plans.items()}
    whole_state = whole.new_state()
    seconds: dict[str, list[float]] = {name: [] for name in ("torch", "whole frame", *plans)}
    macs: dict[str, list[float]] = {name: [] for name in plans}
    errors: dict[str, float] = dict.fromkeys(plans, 0.0)
    changed = []
    whole(first, None, whole_state)
    for name, plan in plans.items():
        plan(first, None, states[name])
    for frame in shown:
        seconds["torch"].append(timed(dense, frame.contiguous(memory_format=torch.channels_last))[0])
        spent, right = timed(whole, frame, None, whole_state)
        seconds["whole frame"].append(spent)
        for name, plan in plans.items():
            spent, out = timed(plan, frame, None, states[name])
            seconds[name].append(spent)
            stats = plan.stats(states[name])
            macs[name].append(stats.macs / stats.dense_macs)
            errors[name] = max(errors[name], float((out - right).abs().max()))
        changed.append(plans["exact"].stats(states["exact"]).changed)
    scale = float(right.abs().max())
    return {
        "clip": clip.stem,
        "network": network,
        "frames": len(changed),
        "changed": statistics.fmean(changed),
        "threads": torch.get_num_threads(),
        "methods": {
            name: {
                "macs": statistics.fmean(macs.get(name, [1.0])),
                "macs_median": statistics.median(macs.get(name, [1.0])),
                "mean_ms": statistics.fmean(spent) * 1e3,
                "median_ms": statistics.median(spent) * 1e3,
                "error": errors.get(name, 0.0) / scale,
            }
            for name, spent in seconds.items()
        },
    }


def pictures(clip: Path, preprocess: Callable[[torch.Tensor], torch.Tensor], frames: int):
    with av.open(str(clip)) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number > frames:
                return
            yield preprocess(torch.from_numpy(picture.to_ndarray(format="rgb24")))


def timed(call: Callable[..., torch.Tensor], *arguments: object) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    out = call(*arguments)
    return time.perf_counter() - start, out


def show(record: dict) -> None:
    """Print one row for each clip and method."""
    m = record["machine"]
    out = Table(title=f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, {record['date']}")
    for column in ("clip", "network", "method"):
        out.add_column(column, no_wrap=True)
    for column in ("pixels changed", "MACs", "median", "ms", "median", "of whole", "largest error / largest output"):
        out.add_column(column, justify="right")
    for clip in record["clips"]:
        for number, (name, row) in enumerate(clip["methods"].items()):
            head = (clip["clip"], clip["network"]) if not number else ("", "")
            out.add_row(
                *head,
                name,
                "" if number else f"{clip['changed']:.3f}",
                f"{row['macs']:.3f}",
                f"{row['macs_median']:.3f}",
                f"{row['mean_ms']:.1f}",
                f"{row['median_ms']:.1f}",
                f"{row['mean_ms'] / clip['methods']['whole frame']['mean_ms']:.3f}",
                f"{row['error']:.2g}",
            )
        out.add_section()
    Console(width=max(Console().width, 150)).print(out)
