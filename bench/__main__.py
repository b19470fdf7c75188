"""`python -m bench`: run the suites, write `bench/results/NAME.json` and print the tables, losses included."""

from __future__ import annotations

import datetime
import importlib.util
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
from bench.skip import show as show_skip
from bench.skip import skip
from bench.timing import bandwidth, machine, peak
from bench.video import show as show_video
from bench.video import video

FOLDER = Path(__file__).parent
NEEDS = {"engines": ("onnx", "onnxscript", "onnxruntime", "openvino", "timm")}
DRAWN = ("conv2d", "engines", "network", "scaling")
app = typer.Typer(add_completion=False, help=__doc__)
app.command()(video)
app.command()(exact)
app.command()(skip)
app.command()(gpu)
app.command()(memory)


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        run()


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="a suite, or all")] = "all",
    select: Annotated[str, typer.Option("-k", help="only the cases whose name matches, as pytest's -k")] = "",
    output: Annotated[
        Path | None, typer.Option(help="folder for records and plots; bench/results, but none for chosen cases")
    ] = None,
) -> None:
    """Run the suites and print their tables. Without a command all of them run."""
    suites = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    if suite != "all" and suite not in suites:
        raise typer.BadParameter(f"no suite {suite!r}; there are: {', '.join(suites)}, all")
    if output is None and not select:
        output = FOLDER / "results"
    for name in suites if suite == "all" else [suite]:
        lacking = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
        if lacking:
            reason = f"{name} needs {', '.join(lacking)}: pip install -e '.[engines]'"
            if suite != "all":
                raise typer.BadParameter(reason)
            print(f"left out: {reason}", file=sys.stderr)
            continue
        rows = run_suite(name, select)
        threads = sorted({row["threads"] for row in rows})
        ceilings = {"flops": {n: peak(n) for n in threads}, "bytes": {n: bandwidth(n) for n in threads}}
        date = datetime.date.today().isoformat()
        record = {"suite": name, "date": date, "machine": machine() | ceilings, "rows": rows}
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            replace_json(output / f"{name}.json", record)
            if name in DRAWN:
                plot(record, output / f"{name}.png")
        shown(record)


@app.command()
def table(
    results: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="JSON files under bench/results")],
) -> None:
    """Print the tables of results that were measured before."""
    for path in results:
        shown(_record(path))


@app.command(name="plot")
def plots(
    results: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="JSON files of suites: conv2d, network, engines")
    ],
    output: Annotated[Path, typer.Option(exists=True, file_okay=False, help="folder for the pictures")] = Path(),
) -> None:
    """Draw time over the share of active blocks, one PNG for each file."""
    for path in results:
        record = _record(path)
        if not isinstance(record.get("rows"), list):
            raise typer.BadParameter(f"{path} is of suite {record.get('suite')!r}; only suites with rows are drawn")
        plot(record, output / f"{path.stem}.png")


def _record(path: Path) -> dict:
    """What a run wrote to `path`."""
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"{path} is no JSON: {error}; give a file that `run` wrote") from None
    if not isinstance(record, dict) or not {"suite", "machine"} <= record.keys():
        raise typer.BadParameter(f"{path} is no record with a suite and a machine; give a file that `run` wrote")
    return record


def shown(record: dict) -> None:
    """Print a record as its suite is printed."""
    of = {"video": show_video, "exact": show_exact, "skip": show_skip, "engines": show_engines}
    of |= {"gpu": show_gpu, "memory": show_memory}
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
    Winograd's algorithms and dot products of bfloat16 can be above 100 %. "Of memory" is that of the bytes which must
    at least be read and written, over a copy's: maps that are still in a cache can be above 100 %.
    """
    console = Console(width=max(Console().width, 170))
    rows = record["rows"]
    densities = [key for key in rows[0]["seconds"] if key != rows[0]["baseline"]]
    m = record["machine"]
    ceilings = {"of peak": ("flops", lambda row: 2 * row["macs"])}
    if "bytes" in rows[0]:
        ceilings["of memory"] = ("bytes", lambda row: row["bytes"])
    out = Table(title=f"{record['suite']}: {m['processor']}, {m['cores']} cores, torch {m['torch']}, {record['date']}")
    for column in (
        "",
        "threads",
        "dtype",
        "GMAC",
        "dense ms",
        *ceilings,
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
        shares = [_share(work(row), row, m.get(ceiling)) for ceiling, work in ceilings.values()]
        gmac = f"{row['macs'] / 1e9:.2f}"
        out.add_row(row["row"], str(row["threads"]), dtype, gmac, f"{dense * 1e3:.2f}", *shares, *cells)
    out.add_section()
    for threads, dtype in sorted({key[:2] for key in ratios}):
        logarithms = {d: [math.log(ratio) for ratio in ratios[threads, dtype, d]] for d in densities}
        means = {d: math.exp(sum(values) / len(values)) for d, values in logarithms.items()}
        cells = [f"{means[d]:.3f}" for d in densities] + [f"{means[d] / float(d):.2f}" for d in densities]
        out.add_row("geometric mean", str(threads), dtype, "", "", *("" for _ in ceilings), *cells)
    console.print(out)


def _share(work: int, row: dict, ceilings: dict | None) -> str:
    """What a row does of `work` a second with all blocks active, as a share of the ceiling for its threads."""
    if not ceilings:
        return ""
    ceiling = ceilings.get(str(row["threads"]), ceilings.get(row["threads"]))  # JSON has keys of text
    return f"{work / row['seconds']['1'] / ceiling:.0%}"


if __name__ == "__main__":
    app()
