"""Real clips: Skip-Convolutions' gates at several epsilons beside the dense network, frame by frame."""

from __future__ import annotations

import datetime
import statistics
from pathlib import Path
from typing import Annotated

import skipconv
import tasknets
import torch
import typer
from blockcopy.files import replace_json
from rich.console import Console
from rich.table import Table
from tasknets import scores

import sparseblock
from bench.exact import pictures, timed
from bench.timing import machine
from bench.video import finite

GATES = {"input norm": skipconv.InputNorm, "output norm": skipconv.OutputNorm}


def skip(
    clips: Annotated[list[Path], typer.Argument(help="video files")],
    network: Annotated[str, typer.Option(help="task network")] = "espnet",
    weights: Annotated[Path | None, typer.Option(help="its weights")] = None,
    input_norm: Annotated[list[float] | None, typer.Option(help="epsilon of Input-Norm gates; several")] = None,
    output_norm: Annotated[list[float] | None, typer.Option(help="epsilon of Output-Norm gates; several")] = None,
    structure: Annotated[int, typer.Option(help="pixels along a side of the gates' blocks")] = 4,
    frames: Annotated[int, typer.Option(help="at most this many frames of each clip")] = 100,
    output: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
) -> None:
    """Compare gates of convolutions with the dense network: MACs, time, agreement."""
    epsilons = {"input norm": input_norm or [], "output norm": output_norm or []}
    results = [compare(clip, network, weights, epsilons, structure, frames) for clip in clips]
    record = {"suite": "skip", "date": datetime.date.today().isoformat(), "machine": machine(), "clips": results}
    show(record)
    if output:
        replace_json(output, record)


@torch.inference_mode()
def compare(
    clip: Path, network: str, weights: Path | None, epsilons: dict[str, list[float]], structure: int, frames: int
) -> dict:
    """Every gate over one clip, in one loop; the first frame, which is dense, does not count."""
    task = tasknets.load(network, weights)
    dense = tasknets.load(network, weights).model.to(memory_format=torch.channels_last)
    score = scores.pixel_agreement if task.task == "segmentation" else scores.psnr
    shown = pictures(clip, task.preprocess, frames)
    first = next(shown)
    size = tuple(first.shape[2:])
    whole = sparseblock.compile(task.model, first, block_size=64)
    whole_state = whole.new_state()
    nets = {
        f"{kind}, {epsilon:g}": skipconv.convert(task.model, first, GATES[kind](epsilon), structure)
        for kind, given in epsilons.items()
        for epsilon in given
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("torch", "whole frame", *nets)}
    macs: dict[str, list[float]] = {name: [] for name in nets}
    quality: dict[str, list[float]] = {name: [] for name in ("whole frame", *nets)}
    whole(first, None, whole_state)
    for net in nets.values():
        net(first)
    for frame in shown:
        spent, out = timed(dense, frame.contiguous(memory_format=torch.channels_last))
        seconds["torch"].append(spent)
        truth = task.predict(out, size).clone()
        spent, out = timed(whole, frame, None, whole_state)
        seconds["whole frame"].append(spent)
        quality["whole frame"].append(float(score(task.predict(out, size), truth)))
        for name, net in nets.items():
            spent, out = timed(net, frame)
            seconds[name].append(spent)
            macs[name].append(net.stats.share)
            quality[name].append(float(score(task.predict(out, size), truth)))
    return {
        "clip": clip.stem,
        "network": network,
        "structure": structure,
        "frames": len(seconds["torch"]),
        "threads": torch.get_num_threads(),
        "score": "pixel agreement with dense" if task.task == "segmentation" else "PSNR to dense, dB",
        "methods": {
            name: {
                "macs": statistics.fmean(macs.get(name, [1.0])),
                "mean_ms": statistics.fmean(spent) * 1e3,
                "median_ms": statistics.median(spent) * 1e3,
                **({"score": statistics.fmean(finite(quality[name]))} if name in quality else {"error": 0.0}),
            }
            for name, spent in seconds.items()
        },
    }


def show(record: dict) -> None:
    """Print one row for each clip and method."""
    m = record["machine"]
    out = Table(title=f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, {record['date']}")
    for column in ("clip", "network", "method"):
        out.add_column(column, no_wrap=True)
    for column in ("MACs", "mean ms", "median ms", "of torch", "of whole", "score"):
        out.add_column(column, justify="right")
    for clip in record["clips"]:
        taken = {name: row["mean_ms"] for name, row in clip["methods"].items()}
        for number, (name, row) in enumerate(clip["methods"].items()):
            head = (clip["clip"], clip["network"]) if not number else ("", "")
            out.add_row(
                *head,
                name,
                f"{row['macs']:.3f}",
                f"{row['mean_ms']:.1f}",
                f"{row['median_ms']:.1f}",
                f"{taken[name] / taken['torch']:.3f}",
                f"{taken[name] / taken['whole frame']:.3f}",
                f"{row['score']:.4g}" if "score" in row else clip["score"] if not number else "",
            )
        out.add_section()
    Console(width=max(Console().width, 150)).print(out)
