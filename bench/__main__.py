"""`python -m bench`: run the suites, write `bench/results/NAME.json` and print the tables, losses included."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from blockcopy.files import replace_json
from rich.console import Console
from rich.table import Table

from bench.engines import show as show_engines
from bench.exact import exact
from bench.exact import show as show_exact
from bench.gpu import gpu
from bench.gpu import show as show_gpu
from bench.memory import memory
from bench.memory import show as show_memory
from bench.plots import plot
from bench.timing import machine, peak
from bench.video import show as show_video
from bench.video import video

FOLDER = Path(__file__).parent
app = typer.Typer(add_completion=False, help=__doc__)
app.command()(video)
app.command()(exact)
app.command()(gpu)
app.command()(memory)


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="a suite, or all")] = "all",
    select: Annotated[str, typer.Option("-k", help="only the cases whose name matches, as pytest's -k")] = "",
    output: Annotated[Path, typer.Option(help="folder for the results")] = FOLDER / "results",
) -> None:
    """Run the suites and print their tables."""
    suites = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    if suite != "all" and suite not in suites:
        raise typer.BadParameter(f"no suite {suite!r}; there are: {', '.join(suites)}, all")
    for name in suites if suite == "all" else [suite]:
        rows = run_suite(name, select)
        output.mkdir(parents=True, exist_ok=True)
        about = machine() | {"flops": {threads: peak(threads) for threads in sorted({row["threads"] for row in rows})}}
        record = {"suite": name, "date": datetime.date.today().isoformat(), "machine": about, "rows": rows}
        replace_json(output / f"{name}.json", record)
        shown(record)


@app.command()
def table(results: Annotated[list[Path], typer.Argument(help="JSON files under bench/results")]) -> None:
    """Print the tables of results that were measured before."""
    for path in results:
        shown(json.loads(path.read_text()))


@app.command(name="plot")
def plots(
    results: Annotated[list[Path], typer.Argument(help="JSON files of suites: conv2d, network, engines")],
    output: Annotated[Path, typer.Option(help="folder for the pictures")] = Path(),
) -> None:
    """Draw time over the share of active blocks, one PNG for each file."""
    for path in results:
        record = json.loads(path.read_text())
        if not isinstance(record.get("rows"), list):
            raise typer.BadParameter(f"{path} is of suite {record.get('suite')!r}; only suites with rows are drawn")
        plot(record, output / f"{path.stem}.png")


def shown(record: dict) -> None:
    """Print a record as its suite is printed."""
    of = {"video": show_video, "exact": show_exact, "engines": show_engines, "gpu": show_gpu, "memory": show_memory}
    of.get(record["suite"], show)(record)


def run_suite(name: str, select: str) -> list[dict]:
    """The rows of one suite: each benchmark's extra_info."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", "-q", str(FOLDER / f"bench_{name}.py"), "--benchmark-only"]
        command += [
            "-o",
            "python_files=bench_*.py",
            "-o",
            "addopts=",
            f"--benchmark-json={raw}",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--benchmark-columns=median,iqr,rounds"] + (["-k", select] if select else [])
        done = subprocess.run(command, cwd=FOLDER.parent, check=False)
        if done.returncode:
            raise typer.Exit(done.returncode)
        return [benchmark["extra_info"] for benchmark in json.loads(raw.read_text())["benchmarks"]]


def show(record: dict) -> None:
    """Print one suite: time relative to dense at each density, and the gap time / (dense time x density).

    "Of peak" is the rate of the direct sum's FLOP with all blocks active, over that of multiply-adds in registers:
    Winograd's algorithms and dot products of bfloat16 can be above 100 %.
    """
    console = Console(width=max(Console().width, 150))
    rows = record["rows"]
    densities = [key for key in rows[0]["seconds"] if key != rows[0]["baseline"]]
    m = record["machine"]
    out = Table(title=f"{record['suite']}: {m['processor']}, {m['cores']} cores, torch {m['torch']}, {record['date']}")
    for column in (
        "",
        "threads",
        "dtype",
        "GMAC",
        "dense ms",
        "of peak",
        *(f"time at {d}" for d in densities),
        *(f"gap at {d}" for d in densities),
    ):
        out.add_column(column, justify="left" if not column else "right", no_wrap=not column)
    ratios: dict[tuple[int, str, str], list[float]] = {}
    for row in rows:
        dense, dtype = row["seconds"][row["baseline"]], row.get("dtype", "float32")
        relative = {d: row["seconds"][d] / dense for d in densities}
        for d in densities:
            ratios.setdefault((row["threads"], dtype, d), []).append(relative[d])
        cells = [f"{relative[d]:.3f}" for d in densities] + [f"{relative[d] / float(d):.2f}" for d in densities]
        peaks = m.get("flops", {})
        flops = peaks.get(str(row["threads"]), peaks.get(row["threads"]))
        of_peak = f"{2 * row['macs'] / row['seconds']['1'] / flops:.0%}" if flops else ""
        gmac = f"{row['macs'] / 1e9:.2f}"
        out.add_row(row["row"], str(row["threads"]), dtype, gmac, f"{dense * 1e3:.2f}", of_peak, *cells)
    out.add_section()
    for threads, dtype in sorted({key[:2] for key in ratios}):
        logarithms = {d: [math.log(ratio) for ratio in ratios[threads, dtype, d]] for d in densities}
        means = {d: math.exp(sum(values) / len(values)) for d, values in logarithms.items()}
        cells = [f"{means[d]:.3f}" for d in densities] + [f"{means[d] / float(d):.2f}" for d in densities]
        out.add_row("geometric mean", str(threads), dtype, "", "", "", *cells)
    console.print(out)


if __name__ == "__main__":
    app()
