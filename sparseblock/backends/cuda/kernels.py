"""The list of CUDA kernels, csrc/cuda/kernels.txt, and where their sources are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

import sparseblock
from sparseblock.errors import SparseBlockError

WARP = 32  # threads
SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}  # of the kernels of each stored type


@dataclass(frozen=True)
class Kernel:
    """A line of the list.

    Attributes:
        name: also of its entry.
        source: a file of csrc/cuda.
        macros: of the preprocessor, by name.
    """

    name: str
    source: str
    macros: dict[str, str]

    @property
    def threads(self) -> int:
        """In a group."""
        return int(self.macros["SB_THREADS"])

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a group."""
        return int(self.macros.get("SB_SHARED", 0))

    @property
    def architecture(self) -> str | None:
        """The only one that it is for; None: every one."""
        return self.macros.get("SB_ARCH")

    @property
    def groups_per_sm(self) -> int:
        """Groups that share a multiprocessor."""
        return int(self.macros.get("SB_GROUPS_PER_SM", 1))


@functools.cache
def kernels() -> dict[str, Kernel]:
    """Every kernel of the list, by name."""
    listed = {}
    for line in (sources()[0] / "kernels.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, source, *macros = line.split()
            listed[name] = Kernel(name, source, dict(macro.removeprefix("-D").split("=", 1) for macro in macros))
    return listed


@functools.cache
def sources() -> tuple[Path, Path]:
    """The folders of the kernels and of sparseblock.h: beside the package's source, or inside of the installed one.

    Raises:
        SparseBlockError: there are none.
    """
    for folder in map(Path, sparseblock.__path__):
        for kernels, headers in (
            (folder.parent / "csrc" / "cuda", folder.parent / "csrc" / "include"),
            (folder / "csrc" / "cuda", folder / "include"),
        ):
            if (kernels / "kernels.txt").is_file() and (headers / "sparseblock.h").is_file():
                return kernels, headers
    raise SparseBlockError(
        f"the CUDA kernels are not in {', '.join(sparseblock.__path__)}; the cuda backend compiles them where it runs: "
        "install with `pip install .`"
    )
