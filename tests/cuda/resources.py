"""What the assembler gives every CUDA kernel: `python tests/cuda/resources.py` writes docs/cuda-kernels.md anew."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from sparseblock.backends.cuda import compile as compiler
from sparseblock.backends.cuda.kernels import Kernel, kernels

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
TABLE = Path(__file__).parents[2] / "docs" / "cuda-kernels.md"


def spilled(log: str) -> list[int]:
    """Bytes of stack, stored and loaded by spills, as the assembler says them of one kernel."""
    said = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert len(said) == 1, log
    return [int(number) for number in said[0]]


def registers(log: str) -> int:
    """Of one thread."""
    (said,) = re.findall(r"Used (\d+) registers", log)
    return int(said)


def table(logs: dict[tuple[str, str], str]) -> str:
    """The document, from what the assembler said by kernel and architecture."""
    lines = [
        "# CUDA kernels",
        "",
        f"What {compiler._compiler()} makes of `csrc/cuda/kernels.txt`, written by `python tests/cuda/resources.py`.",
        "No kernel spills a register or has a stack, on any of the three: `tests/cuda/test_compile.py` checks that.",
        "Hopper's own are for sm_90a alone. Times are in `bench/results/gpu.json`, not here.",
        "",
        "| kernel | threads | groups per multiprocessor | shared memory, bytes | "
        + " | ".join(f"registers, {arch}" for arch in ARCHITECTURES)
        + " |",
        "|" + "---|" * (4 + len(ARCHITECTURES)),
    ]
    for name, kernel in kernels().items():
        used = " | ".join(str(registers(log)) if (log := logs.get((name, arch))) else "-" for arch in ARCHITECTURES)
        lines.append(f"| `{name}` | {kernel.threads} | {kernel.groups_per_sm} | {kernel.shared} | {used} |")
    return "\n".join(lines) + "\n"


def rows(document: str) -> dict[str, list[int | None]]:
    """The table's numbers by kernel; None for an architecture that it is not for."""
    found = re.findall(r"^\| `(\w+)` \| (.*) \|$", document, re.MULTILINE)
    return {
        name: [None if number == "-" else int(number) for number in numbers.split(" | ")] for name, numbers in found
    }


def compiled_for() -> list[tuple[str, str]]:
    """Every kernel with every architecture that it is for."""
    pairs = itertools.product(kernels().values(), ARCHITECTURES)
    return [(kernel.name, arch) for kernel, arch in pairs if kernel.architecture in (None, arch)]


def log_of(kernel: Kernel, arch: str) -> str:
    return compiler.compiled(kernel, (), arch)[1]


if __name__ == "__main__":
    TABLE.write_text(table({(name, arch): log_of(kernels()[name], arch) for name, arch in compiled_for()}))
