"""Everything that a GPU is to say, in one call: ceilings, layers, networks, tests, sanitizer. Written as it comes."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tasknets
import torch
import torch.nn.functional as F
import typer
from blockcopy import BlockCopy
from blockcopy.files import replace_json
from rich.console import Console
from rich.table import Table
from tasknets.scenes import SceneGenerator
from torch import nn

import sparseblock
from bench.layers import SWIFTNET_RN18, Layer
from bench.networks import DeepLabV3
from bench.timing import machine
from sparseblock import BlockSet, ops

DENSITIES = (1.0, 0.5, 0.25, 0.1)
NETWORKS = ("swiftnet-rn18", "swiftnet-rn50", "deeplabv3-rn50", "csp")
WITH_POLICY = ("swiftnet-rn50", "deeplabv3-rn50", "csp")
HEIGHT, WIDTH = 1024, 2048  # pixels of a frame
ON_A_GPU = ["tests/ops", "tests/cuda/test_cuda_conv2d.py", "tests/cuda/test_hopper_conv2d.py", "tests/test_blocks.py"]
ON_A_GPU += ["tests/cuda/test_cuda_pool2d.py", "tests/cuda/test_map_sizes.py"]
ON_A_GPU += ["tests/plan/test_device_plan.py", "tests/blockcopy/test_on_device.py", "tests/test_dense.py"]
SANITIZED = ("tests/cuda/test_hopper_conv2d.py", "-k", "edges and dtype1 and (one or many or few)")
ROUNDS, REPLAYS = 20, 10


def gpu(
    output: Annotated[Path, typer.Option(help="folder for gpu.json and the logs of tests")] = Path("bench/results"),
    minutes: Annotated[float, typer.Option(help="begin no step after this long")] = 9.0,
    dtype: Annotated[str, typer.Option(help="what maps are stored in")] = "float16",
) -> None:
    """Measure and test on the GPU of this machine, in CUDA graphs on both sides."""
    if not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here, and no other device stands for one")
    output.mkdir(parents=True, exist_ok=True)
    start, device, stored = time.perf_counter(), torch.device("cuda"), getattr(torch, dtype)
    record = {
        "suite": "gpu",
        "date": datetime.date.today().isoformat(),
        "machine": machine() | {"gpu": torch.cuda.get_device_name(device)},
        "dtype": dtype,
    }
    steps: dict[str, Callable[[], object]] = {
        "ceilings": lambda: ceilings(device, stored),
        "layers": lambda: [layer(shape, device, stored) for shape in SWIFTNET_RN18],
        "networks": lambda: [network(name, device, stored) for name in NETWORKS],
        "policy": lambda: [policy(name, device, stored) for name in WITH_POLICY],
        "sanitizer": lambda: sanitized(output / "gpu-sanitizer.log"),
        "tests": lambda: command(tests(), output / "gpu-tests.log", 180),
        "compiled": lambda: apart("compiled", "swiftnet-rn50", dtype, limit=330),  # last: it takes longest
    }
    for name, step in steps.items():
        began = time.perf_counter()
        if began - start > 60 * minutes:
            record[name] = {"left out": f"after {minutes:g} minutes"}
        else:
            try:
                record[name] = step()
            except Exception as error:  # one step must not cost the others, on a machine that is lent for minutes
                record[name] = {"failed": f"{type(error).__name__}: {error}"}
        record.setdefault("seconds", {})[name] = time.perf_counter() - began
        replace_json(output / "gpu.json", record)
    show(record)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """The median time of `run`; on a GPU of REPLAYS replays of it as a CUDA graph, after one call that warms up."""
    run()
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(REPLAYS):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / REPLAYS)
    return statistics.median(times)


def ceilings(device: torch.device, dtype: torch.dtype, size: int = 8192) -> dict[str, float]:
    """What the chip gives at most: products of matrices, FLOP/s, and copies, bytes/s read and written."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    into = torch.empty_like(a)
    product, copy = seconds(lambda: torch.matmul(a, b, out=into), device), seconds(lambda: into.copy_(a), device)
    return {"flops": 2 * size**3 / product, "bytes": 2 * a.nbytes / copy}


@torch.no_grad()
def layer(shape: Layer, device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """A convolution by torch, which asks cuDNN for its fastest, and by both backends of ours at every density."""
    torch.backends.cudnn.benchmark = True
    layout = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    x = torch.randn(1, shape.channels, shape.height, shape.width).to(**layout)
    weight = torch.randn(shape.out_channels, shape.channels, shape.kernel, shape.kernel).to(**layout)
    bias, padding = torch.randn(shape.out_channels, device=device), shape.dilation * (shape.kernel - 1) // 2
    window = {"stride": shape.stride, "padding": padding, "dilation": shape.dilation}
    taken = {"torch": seconds(lambda: F.conv2d(x, weight, bias.to(dtype), **window), device)}
    out = F.conv2d(x, weight, bias.to(dtype), **window)
    for backend in ("cuda", "triton"):
        for density in DENSITIES:
            blocks = random_blocks(out, shape.block, density)
            with sparseblock.backend(backend):
                run = lambda blocks=blocks: ops.conv2d(x, weight, bias, blocks, out, **window)  # noqa: E731
                taken[f"{backend} {density:g}"] = seconds(run, device)
    return {"row": shape.name, "macs": shape.macs, "seconds": taken}


def random_blocks(out: torch.Tensor, block: int, density: float) -> BlockSet:
    """As many random blocks of a map as `density` says, in a list with room for all."""
    rows, cols = (-(-side // block) for side in out.shape[2:])
    mask = torch.zeros(rows * cols, dtype=torch.bool)
    chosen = torch.randperm(rows * cols, generator=torch.Generator().manual_seed(1))
    mask[chosen[: max(1, round(density * rows * cols))]] = True
    return BlockSet.from_mask(mask.reshape(1, rows, cols).to(out.device), (block, block))


def made(name: str) -> nn.Module:
    """The network, its weights at random: times do not depend on them."""
    return DeepLabV3().eval() if name == "deeplabv3-rn50" else tasknets.load(name).model


def dense(name: str, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    """The network as torch runs it fastest, and its frame."""
    torch.backends.cudnn.benchmark = True
    layout = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    return made(name).to(**layout), torch.rand(1, 3, HEIGHT, WIDTH).to(**layout)


@torch.no_grad()
def network(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """A whole network: torch's as a CUDA graph, and a plan at every density, copies of frame and mask included."""
    torch_network, x = dense(name, device, dtype)
    taken = {"torch": seconds(lambda: torch_network(x), device)}
    frame = x.float().contiguous()
    plan = sparseblock.compile(made(name).to(device), frame, block_size=128, dtype=dtype)
    state = plan.new_state()
    plan(frame, None, state)
    grid = torch.empty(1, 1, plan.grid.rows, plan.grid.cols, device=device)
    for density in (1.0, 0.5, 0.3, 0.1):
        blocks = random_blocks(grid, 1, density).to_mask()
        taken[f"plan {density:g}"] = by_event(lambda blocks=blocks: plan(frame, blocks, state), device)
    return {"row": f"{name} {HEIGHT}x{WIDTH}", "macs": plan.macs, "seconds": taken}


@torch.no_grad()
def compiled(name: str, dtype: str) -> dict[str, object]:
    """The network by torch.compile, which tries kernels for every convolution, as a CUDA graph.

    Without the descent that mode="max-autotune" does for every kernel between them besides, which takes far longer.
    """
    device = torch.device("cuda")
    torch_network, x = dense(name, device, getattr(torch, dtype))
    taken = {"torch": seconds(lambda: torch_network(x), device)}
    fast = torch.compile(torch_network, options={"max_autotune": True})
    return {"row": f"{name} {HEIGHT}x{WIDTH}", "seconds": taken | {"compiled": seconds(lambda: fast(x), device)}}


def apart(step: str, *arguments: str, limit: float) -> object:
    """What a function of this module returns, in a process of its own that ends after `limit` seconds at the latest."""
    call = f"import json; from bench import gpu; print(json.dumps(gpu.{step}(*{arguments!r})))"
    try:
        done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"stopped": f"after {limit:g} s"}
    lines = done.stdout.strip().splitlines()
    return {"failed": done.stderr[-500:]} if done.returncode else json.loads(lines[-1])


def policy(name: str, device: torch.device, dtype: torch.dtype, frames: int = 48) -> dict[str, object]:
    """Frames of a street scene under BlockCopy, which learns: recorded frames, policy and updates included."""
    preprocess = tasknets.load("swiftnet-rn18").preprocess
    given = [preprocess(scene.frame).to(device) for scene in SceneGenerator(7, HEIGHT, WIDTH, frames=12)]
    read = (lambda out: out[0]) if name == "csp" else None  # its map of centres
    options = {"task": "segmentation", "target": 0.3, "block_size": 128, "read": read, "dtype": dtype}
    video = BlockCopy(made(name).to(device), **options)
    active = []
    for number in range(frames):
        if number == frames // 2:  # the first frames compile, record and are all active
            torch.cuda.synchronize()
            began = time.perf_counter()
        video(given[min(number % 22, 22 - number % 22)])  # there and back, without a cut
        active.append(video.active)
    torch.cuda.synchronize()
    taken = (time.perf_counter() - began) / (frames - frames // 2)
    share = torch.stack(active[frames // 2 :]).float().mean().item()
    return {"row": f"{name} {HEIGHT}x{WIDTH}", "seconds": taken, "active": share}


def by_event(run: Callable[[], object], device: torch.device) -> float:
    """The median time of `run`, which is a graph of its own, as a caller sees it: host and device."""
    for _ in range(3):
        run()
    times = []
    for _ in range(ROUNDS if device.type == "cuda" else 1):
        began = time.perf_counter()
        for _ in range(REPLAYS if device.type == "cuda" else 1):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - began) / (REPLAYS if device.type == "cuda" else 1))
    return statistics.median(times)


def tests() -> list[str]:
    """The command that runs all tests that compute on a GPU."""
    select = "cuda or gpu or device or blocks or triton"
    return [sys.executable, "-m", "pytest", "-q", "-n", str(min(15, os.cpu_count() or 1)), *ON_A_GPU, "-k", select]


def command(words: list[str], log: Path, limit: float) -> dict[str, object]:
    """Runs a command for `limit` seconds at most, its output to `log`: how it ended, and its last line."""
    with log.open("w") as file:
        try:
            status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:g} s"
    lines = log.read_text().strip().splitlines()
    return {"status": status, "said": lines[-1] if lines else ""}


def sanitized(log: Path) -> dict[str, object]:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"left out": "compute-sanitizer is not on the path"}
    ours = ["--kernel-name", "kernel_substring=conv2d", "--error-exitcode", "9"]  # torch's would take minutes
    return command([tool, *ours, sys.executable, "-m", "pytest", "-q", *SANITIZED], log, 75)


def show(record: dict) -> None:
    """Print layers and networks: milliseconds of torch, then every other time as a fraction of that."""
    console = Console(width=max(Console().width, 150))
    for suite in ("layers", "networks"):
        rows = record.get(suite)
        if not isinstance(rows, list):
            continue
        out = Table(title=f"{suite}: {record['machine']['gpu']}, {record['dtype']}, {record['date']}")
        names = list(rows[0]["seconds"])
        for column in ("", "GMAC", "torch, ms", *names[1:]):
            out.add_column(column, justify="left" if not column else "right", no_wrap=not column)
        for row in rows:
            taken = row["seconds"]
            fractions = [f"{taken[name] / taken['torch']:.3f}" for name in names[1:]]
            out.add_row(row["row"], f"{row['macs'] / 1e9:.2f}", f"{taken['torch'] * 1e3:.3f}", *fractions)
        console.print(out)
    for step in ("ceilings", "policy", "sanitizer", "tests", "compiled"):
        console.print(f"{step}: {record.get(step)}")
