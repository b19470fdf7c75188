"""Peak resident memory: a network by each engine and by a plan, each in a process of its own."""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tasknets
import torch
import typer
from blockcopy.files import replace_json
from rich.console import Console
from rich.table import Table

import sparseblock
from bench import engines
from bench.timing import machine

PLANS = {"sparseblock": torch.float32, "sparseblock bfloat16": torch.bfloat16}
FRAMES = 4


def memory(
    network: Annotated[str, typer.Option(help="task network")] = "swiftnet-rn50",
    height: Annotated[int, typer.Option(help="of a frame")] = 1024,
    width: Annotated[int, typer.Option(help="of a frame")] = 2048,
    output: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
) -> None:
    """Compare the peak resident memory of a plan with that of the engines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        engines.export(tasknets.load(network).model, torch.rand(1, 3, height, width), path)
        bytes_ = {}
        for name in (*engines.ENGINES, *PLANS):
            command = [sys.executable, "-m", "bench.memory", name, network, str(height), str(width), str(path)]
            child = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE)
            bytes_[name] = json.loads(child.stdout.splitlines()[-1])
    row = {"row": f"{network} {height}x{width}", "threads": torch.get_num_threads(), "bytes": bytes_}
    record = {"suite": "memory", "date": datetime.date.today().isoformat(), "machine": machine(), "memory": [row]}
    show(record)
    if output:
        replace_json(output, record)


def _contender(name: str, network: str, frame: torch.Tensor, path: Path) -> Callable[[int], object]:
    """Runs the frame of that number. The module is gone where the contender has no use for it."""
    if name in PLANS:
        plan = sparseblock.compile(tasknets.load(network).model, frame, block_size=128, dtype=PLANS[name])
        state, mask = plan.new_state(), torch.arange(plan.grid.rows * plan.grid.cols) % 2 == 0
        mask = mask.reshape(1, plan.grid.rows, plan.grid.cols)
        return lambda number: plan(frame, mask if number else None, state)
    model = None if name in engines.OF_FILES else tasknets.load(network).model
    run = engines.engine(name, model, frame, path)
    return lambda number: run()


def measure(name: str, network: str, height: int, width: int, path: Path) -> dict[str, int]:
    """Bytes of resident memory above what the process takes with every import done and the frame, but no network:

    made: at most, until the network is ready and has run once.
    runs: at most while frames run after that; what it took only to get there was given back.
    """
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401

    tasknets.load(network)  # what it imports
    frame = torch.rand(1, 3, height, width)
    _restart_peak()
    before = _status("VmRSS")
    run = _contender(name, network, frame, path)
    with torch.inference_mode():
        run(0)
        made = _status("VmHWM")
        _restart_peak()
        for number in range(1, FRAMES):
            run(number)
    return {"made": made - before, "runs": _status("VmHWM") - before}


def _restart_peak() -> None:
    """Peaks count from here; freed memory goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def show(record: dict) -> None:
    """Print the bytes, and those of plans as fractions of each engine's."""
    m = record["machine"]
    for row in record["memory"]:
        out = Table(title=f"{row['row']}, resident memory: {m['processor']}, torch {m['torch']}, {record['date']}")
        columns = ("", "making it, MiB", "running it, MiB", *(f"{plan} / it" for plan in PLANS))
        for column in columns:
            out.add_column(column, justify="left" if not column else "right")
        for name, taken in row["bytes"].items():
            fractions = [f"{row['bytes'][plan]['runs'] / taken['runs']:.2f}" for plan in PLANS]
            out.add_row(name, f"{taken['made'] / 2**20:.0f}", f"{taken['runs'] / 2**20:.0f}", *fractions)
        Console(width=max(Console().width, 120)).print(out)


if __name__ == "__main__":
    name, network, height, width, path = sys.argv[1:]
    print(json.dumps(measure(name, network, int(height), int(width), Path(path))))
