"""Timing several contenders in one run, interleaved, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def keep_freed_memory() -> None:
    """Tells glibc not to give freed memory back to the system.

    By default it does so in whatever call happens to free next: what one contender frees then costs another up to 5 ms.
    All of them run faster without.
    """
    m_trim_threshold, m_mmap_threshold, most = -1, -3, 2**31 - 1  # of malloc.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(m_trim_threshold, most)
        libc.mallopt(m_mmap_threshold, most)


def wall(call: Callable[[], object]) -> Callable[[], float]:
    """A contender that is timed from outside: returns seconds."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timed


def measure(benchmark, contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender over `rounds` rounds after one of warm-up; a round runs every contender once.

    pytest-benchmark drives the rounds and keeps the record; the medians go to its `extra_info["seconds"]`.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}

    def one_round() -> None:
        for name, contender in contenders.items():
            times[name].append(contender())

    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=1)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    benchmark.extra_info["seconds"] = medians
    return medians


def peak(threads: int, rounds: int = 20_000_000) -> float:
    """FLOP/s of float32 fused multiply-adds by `threads` threads, the best of three: bench/peak.c, compiled here."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, Path(__file__).with_name("peak.c"), "-o", library], check=True)
        run = ctypes.CDLL(str(library)).peak
    run.restype, run.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_long, ctypes.POINTER(ctypes.c_float)]
    sink, best = ctypes.c_float(), 0.0
    for _ in range(3):
        start = time.perf_counter()
        flops = run(threads, rounds, ctypes.byref(sink))
        best = max(best, flops / (time.perf_counter() - start))
    return best


def bandwidth(threads: int, elements: int = 1 << 26) -> float:
    """Bytes/s read and written by a copy in memory by `threads` threads, the best of five."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    source = torch.rand(elements)
    into = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        into.copy_(source)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - start))
    torch.set_num_threads(before)
    return best


def machine() -> dict[str, object]:
    """What the numbers hold for: processor, cores, versions, commit."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }
