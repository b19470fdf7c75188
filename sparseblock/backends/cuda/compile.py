"""Compiling a kernel with NVRTC, for one shape and one GPU, and keeping what came out on disk.

The key of what is kept is everything that it depends on: sources, macros, architecture, compiler. A file appears whole
or not at all, so processes may share the folder; one that was damaged is compiled anew.

The package may carry kernels that were compiled ahead of time, by the CMake option SPARSEBLOCK_CUDA_AOT:

    python -m sparseblock.backends.cuda.compile --arch sm_90a --out FOLDER

They are taken where sources, macros and architecture are theirs, whatever compiler there is now, or none.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import sparseblock
from sparseblock.backends.cuda.kernels import Kernel, kernels, sources
from sparseblock.errors import SparseBlockError

_AHEAD = "ahead of time"  # stands for whatever compiler it was
_MAGIC = b"\x7fELF"  # a cubin is one


def cubin(kernel: Kernel, defines: tuple[tuple[str, str], ...], arch: str) -> bytes:
    """The machine code of `kernel` with more macros `defines`, for `arch`, as "sm_90a": from the disk, or compiled now.

    Raises:
        SparseBlockError: cuda-core or NVRTC is missing, or the kernel does not compile.
    """
    for folder in map(Path, sparseblock.__path__):
        carried = _read(folder / "cubins" / _file(kernel, defines, arch, _AHEAD))
        if carried is not None:
            return carried
    path = _folder() / _file(kernel, defines, arch, _compiler())
    kept = _read(path)
    if kept is None:
        kept, _ = compiled(kernel, defines, arch)
        _write(path, kept)
    return kept


def compiled(kernel: Kernel, defines: tuple[tuple[str, str], ...], arch: str) -> tuple[bytes, str]:
    """The same, compiled now; also what the assembler says of registers, shared memory and spills."""
    core = binding("cuda.core")
    macros = [("SB_NAME", kernel.name), *kernel.macros.items(), *defines]
    log = io.StringIO()
    try:
        options = core.ProgramOptions(
            arch=arch,
            std="c++17",
            include_path=[str(folder) for folder in sources()],
            define_macro=macros,
            ptxas_options=["-v"],
        )
        program = core.Program(f'#include "{kernel.source}"\n', "c++", options)
        code = program.compile("cubin", logs=log).code
    except Exception as error:  # of the compiler's binding: any
        raise SparseBlockError(f"the CUDA kernel {kernel.name} does not compile for {arch}: {_said(error)}") from error
    return bytes(code), log.getvalue()


def _said(error: Exception) -> str:
    return str(error).rstrip("\0\n")  # NVRTC's log ends as strings of C do


def binding(name: str):
    """A module of cuda-core, or of the bindings that come with it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SparseBlockError(
            f"the cuda backend needs cuda-core ({error}): pip install 'sparseblock[cuda]'; or pip install "
            "'sparseblock[triton]' and use sparseblock.backend('triton'), or move the tensors to cpu"
        ) from error


def _file(kernel: Kernel, defines: tuple[tuple[str, str], ...], arch: str, compiler: str) -> str:
    said = repr((kernel, defines, arch, compiler, _text(kernel.source)))
    return f"{kernel.name}-{arch}-{hashlib.sha256(said.encode()).hexdigest()[:32]}.cubin"


@functools.cache
def _text(source: str) -> str:
    """Everything that a kernel of this source may include."""
    kernels, headers = sources()
    return "\0".join(
        path.read_text() for path in (kernels / source, *sorted(kernels.glob("*.h")), headers / "sparseblock.h")
    )


@functools.cache
def _compiler() -> str:
    _, major, minor = binding("cuda.bindings.nvrtc").nvrtcVersion()
    return f"nvrtc {major}.{minor}"


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sparseblock" / "cuda"


def _read(path: Path) -> bytes | None:
    """What `_write` wrote; None where nothing is there, or not that."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    digest, code = kept[:32], kept[32:]
    whole = code.startswith(_MAGIC) and hashlib.sha256(code).digest() == digest
    return code if whole else None


def _write(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, path)
    except OSError as error:
        raise SparseBlockError(
            f"a compiled kernel cannot be kept in {path.parent} ({error}); set XDG_CACHE_HOME to a writable folder"
        ) from error


def main(given: Sequence[str] | None = None) -> None:
    """Compiles every kernel of the list ahead of time."""
    parser = argparse.ArgumentParser(prog="python -m sparseblock.backends.cuda.compile", description=main.__doc__)
    parser.add_argument("--arch", required=True, nargs="+", help="architectures, such as sm_80 or sm_90a")
    parser.add_argument("--out", required=True, type=Path, help="the folder that gets the cubins")
    chosen = parser.parse_args(given)
    for arch in chosen.arch:
        for kernel in kernels().values():
            if kernel.architecture in (None, arch):
                _write(chosen.out / _file(kernel, (), arch, _AHEAD), compiled(kernel, (), arch)[0])


if __name__ == "__main__":
    main()
