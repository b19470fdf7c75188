"""The commands of `blockcopy`, with typer and rich."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import tasknets
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import sparseblock
from blockcopy import session
from blockcopy.policies import names as policy_names
from blockcopy.report import FEWEST_TIMED, Report
from blockcopy.video_io import VideoReader

INTERRUPTED, STOPPED = 130, 2
LARGEST, LARGEST_SEED, MOST_THREADS = 2**31 - 1, 2**63 - 1, 1024

PACKAGED = "streets"
"""The network whose weights the package carries."""

T = TypeVar("T")

# typer's own name for "wrong use" moved between its versions; BadParameter < UsageError < ClickException did not.
UsageError = typer.BadParameter.__mro__[2]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Block-sparse video: recompute only the blocks of a frame that matter.",
)


@app.command()
def run(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="File, camera index (0 is the first) or stream URL.")],
    network: Annotated[str, typer.Option(help="Name of the network: see `blockcopy networks`.")],
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of the network.")] = None,
    target: Annotated[float, typer.Option(help="Fraction of blocks to compute, in (0, 1].")] = 0.3,
    block_size: Annotated[int, typer.Option(max=LARGEST, help="Side of a block in pixels.")] = 128,
    policy: Annotated[str, typer.Option(help="What chooses the blocks: see `blockcopy policies`.")] = "blockcopy",
    output: Annotated[Path | None, typer.Option(help="Video to write: .mp4, .mov or .mkv.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Report to write, .json; its plot lies beside it as .png.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    compare_every: Annotated[
        int, typer.Option(min=0, help="Run the dense network on one frame of every k, drawn at random; 0: never.")
    ] = 10,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the policy, and of the frames to compare.")
    ] = 0,
    max_age: Annotated[
        int,
        typer.Option(min=0, max=LARGEST, help="Recompute a block at the latest after so many frames; 0: never."),
    ] = session.Settings.max_age,
    threads: Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads of network and policy.")] = None,
    save_policy: Annotated[Path | None, typer.Option(help="Write the trained policy to this file.")] = None,
    load_policy: Annotated[Path | None, typer.Option(help="Start from the policy in this file.")] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Do not train the policy.")] = False,
) -> None:
    """Run a network over a video, block-sparse; draw the prediction, report activity, MACs, time and agreement."""
    settings = session.Settings(**locals())
    with _progress() as progress:
        task = progress.add_task("", total=None, visible=False, fps=0.0, active=0.0)

        def on_start(reader: VideoReader) -> None:
            progress.update(task, total=reader.length, visible=True)
            if weights is None and network != PACKAGED:
                print(f"blockcopy: {network} runs with random weights; give --weights FILE", file=sys.stderr)

        def on_frame(done: Report) -> None:
            progress.update(task, advance=1, fps=done.fps, active=100 * done.frames[-1].active_fraction)

        outcome = _unless_interrupted(lambda: session.run(settings, on_start, on_frame))
    Console().print(_summary(outcome.report))
    if outcome.written:
        print("wrote " + ", ".join(map(str, outcome.written)))
    count = len(outcome.report.frames)
    if outcome.problem is not None:
        _leave(str(outcome.problem), STOPPED)
    if outcome.interrupted:
        _leave(f"interrupted after {count} frames; what is written is complete up to there", INTERRUPTED)


@app.command()
def demo(
    frames: Annotated[int, typer.Option(min=2, help="Frames of the scene.")] = 240,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="Seed of scene and policies.")] = 0,
    camera: Annotated[str, typer.Option(help="fixed or pan.")] = "fixed",
    height: Annotated[int, typer.Option(help="Height of the scene in pixels.")] = 384,
    width: Annotated[int, typer.Option(help="Width of the scene in pixels.")] = 768,
    target: Annotated[float, typer.Option(help="Fraction of blocks to compute, in (0, 1].")] = 0.3,
    block_size: Annotated[int, typer.Option(max=LARGEST, help="Side of a block in pixels.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads of network and policy.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Directory for demo.mp4 and demo.png; made if missing.")] = Path("."),
) -> None:
    """Dense, lower frame rate, `difference`, `random` and BlockCopy side by side on a synthetic street scene."""
    from blockcopy import demo as scene_demo

    settings = scene_demo.Settings(**{k: v for k, v in locals().items() if k != "scene_demo"})
    with _progress() as progress:
        task = progress.add_task("", total=None, visible=False, fps=0.0, active=0.0)

        def on_step(done: int, total: int, fps: float, active: float) -> None:
            progress.update(task, completed=done, total=total, visible=True, fps=fps, active=100 * active)

        result = _unless_interrupted(lambda: scene_demo.run(settings, on_step))
    Console().print(scene_demo.table(result))
    print(f"wrote {result.video}, {result.picture}")
    if result.frames < frames:
        _leave(f"interrupted after {result.frames} frames; what is written is complete up to there", INTERRUPTED)


@app.command()
def networks() -> None:
    """List the networks."""
    table = Table("name", "task", "weights", box=None)
    for name in tasknets.names():
        network = tasknets.load(name)
        table.add_row(name, network.task, "in the package" if name == PACKAGED else "--weights FILE")
    Console().print(table)


@app.command()
def policies() -> None:
    """List the policies."""
    for name in policy_names():
        print(name)


@app.command()
def version() -> None:
    """Print the version."""
    print(sparseblock.__version__)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr while there is a terminal to draw it on; it vanishes at the end."""
    console = Console(stderr=True)
    progress = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]:.1f} frames/s"),
        TextColumn("active {task.fields[active]:3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        yield progress


def _summary(report: Report) -> Table:
    """The totals of a run for people."""
    t = report.totals()
    table = Table(box=None)
    table.add_column("")
    table.add_column("block-sparse", justify="right")
    table.add_column("dense", justify="right")
    giga = 1e-9
    table.add_row("frames", f"{t['frames']}", f"{t['compared_frames']} compared" if t["compared_frames"] else "")
    table.add_row("active blocks", _number(t["active_fraction"], 100, 1, " %"), "100 %")
    if t["forced_frames"] and t["active_fraction_chosen"] is not None:
        table.add_row(f"  without {t['forced_frames']} forced", _number(t["active_fraction_chosen"], 100, 1, " %"), "")
    table.add_row("GMAC a frame", _number(t["macs"] + t["policy_macs"], giga, 3), _number(t["dense_macs"], giga, 3))
    table.add_row("  of it policy", _number(t["policy_macs"], giga, 3), "")
    table.add_row("MACs against dense", _number(t["macs_vs_dense"], 100, 1, " %"), "100 %")
    table.add_row("ms network", _number(t["network_ms"], 1, 1), _number(t["dense_ms"], 1, 1))
    table.add_row("ms policy", _number(t["policy_ms"], 1, 2), "")
    table.add_row("ms training", _number(t["train_ms"], 1, 2), "")
    table.add_row("ms prepare, I/O (apart)", f"{t['prepare_ms']:.1f}, {t['io_ms']:.1f}", "")
    table.add_row("frames/s", _number(t["fps"], 1, 1), _number(t["dense_fps"], 1, 1))
    if t["speed_up"] is not None:
        timed = t["frames"] > FEWEST_TIMED
        table.add_row("speed-up", _number(t["speed_up"], 1, 2, "x") if timed else "-", "")
    for name, key, scale, digits, unit in (
        ("pixel agreement", "pixel_agreement", 100, 2, " %"),
        ("mean IoU to dense", "mean_iou", 100, 2, " %"),
        ("boxes as dense", "box_agreement", 100, 2, " %"),
        ("PSNR to dense", "psnr_db", 1, 1, " dB"),
    ):
        if t[key] is not None:
            table.add_row(name, _number(t[key], scale, digits, unit), "")
    return table


def _number(value: float | None, scale: float, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value * scale:.{digits}f}{unit}"


def _unless_interrupted(work: Callable[[], T]) -> T:
    """What `work` returns; where it is interrupted, leave with one line (typer would print an empty one)."""
    try:
        return work()
    except KeyboardInterrupt as interrupt:
        message = str(interrupt) or "interrupted"
    _leave(message, INTERRUPTED)


def _leave(message: str, code: int) -> NoReturn:
    print("blockcopy:", " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
