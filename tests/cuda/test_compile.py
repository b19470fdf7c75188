"""Without a GPU: every CUDA kernel compiles for the GPUs that it is for, spills nothing, and is kept on disk whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from resources import ARCHITECTURES, TABLE, compiled_for, registers, rows, spilled

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.backends.cuda import compile as compiler
from sparseblock.backends.cuda.kernels import Kernel, kernels, sources

KERNEL = next(iter(kernels().values()))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sparseblock" / "cuda"


@pytest.mark.parametrize(("name", "arch"), compiled_for())
def test_a_kernel_compiles_spills_nothing_and_is_as_recorded(name, arch):
    code, log = compiler.compiled(kernels()[name], (), arch)
    assert code.startswith(b"\x7fELF")
    assert name.encode() in code
    assert spilled(log) == [0, 0, 0]
    threads, groups, shared, *used = rows(TABLE.read_text())[name]
    kernel = kernels()[name]
    assert [threads, groups, shared] == [kernel.threads, kernel.groups_per_sm, kernel.shared]
    if compiler._compiler() in TABLE.read_text():  # another one may use others
        assert registers(log) == used[ARCHITECTURES.index(arch)], "run python tests/cuda/resources.py"


def test_the_record_has_every_kernel_and_no_other():
    assert list(rows(TABLE.read_text())) == list(kernels())


def test_a_kernel_that_spills_is_seen():
    """The check can fail: so few registers cannot hold a window's sums."""
    crowded = Kernel(KERNEL.name, KERNEL.source, {**KERNEL.macros, "SB_THREADS": "1024", "SB_GROUPS_PER_SM": "2"})
    _, log = compiler.compiled(crowded, (), "sm_80")
    assert any(spilled(log))


def test_every_source_has_a_kernel():
    assert {path.name for path in sources()[0].glob("*.cu")} == {kernel.source for kernel in kernels().values()}


def test_what_was_compiled_is_kept_and_a_damaged_file_is_made_anew(cache, monkeypatch):
    code = compiler.cubin(KERNEL, (), "sm_80")
    (file,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "compiled", None)
        assert compiler.cubin(KERNEL, (), "sm_80") == code
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:40] + b"?" + whole[41:], b""):
        file.write_bytes(damaged)
        assert compiler.cubin(KERNEL, (), "sm_80") == code
        assert file.read_bytes() == whole
    assert list(cache.iterdir()) == [file]


def test_kernels_of_the_package_go_before_the_compiler_where_they_fit(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "kernels", lambda: {KERNEL.name: KERNEL})
    monkeypatch.setattr(sparseblock, "__path__", [*sparseblock.__path__, str(tmp_path)])
    compiler.main(["--arch", "sm_80", "sm_90a", "--out", str(tmp_path / "cubins")])
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_compiler", None)  # none is needed
        codes = {compiler.cubin(KERNEL, (), arch) for arch in ("sm_80", "sm_90a")}
    assert len(codes) == 2 and not cache.exists()
    compiler.cubin(KERNEL, (), "sm_100")  # another architecture, macros, sources
    compiler.cubin(KERNEL, (("SB_ANY", "1"),), "sm_80")
    texts = compiler._text(KERNEL.source)
    monkeypatch.setattr(compiler, "_text", lambda source: texts + " ")
    compiler.cubin(KERNEL, (), "sm_80")
    assert len(list(cache.iterdir())) == 3


def test_cmake_compiles_every_kernel_ahead_of_time(tmp_path):
    source = Path(__file__).parents[2]
    options = ["-DSPARSEBLOCK_CUDA_AOT=sm_80", f"-DPython_EXECUTABLE={sys.executable}"]
    for command in (
        ["cmake", "-S", source, "-B", tmp_path, *options],
        ["cmake", "--build", tmp_path, "--target", "sparseblock_cubins"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name.split("-")[0] for path in (tmp_path / "csrc" / "cuda" / "cubins").glob("*-sm_80-*.cubin")}
    assert made == {name for name, kernel in kernels().items() if kernel.architecture in (None, "sm_80")}


def test_macros_and_architecture_make_other_code(cache):
    compiler.cubin(KERNEL, (), "sm_80")
    compiler.cubin(KERNEL, (("SB_ANY", "1"),), "sm_80")
    compiler.cubin(KERNEL, (), "sm_90a")
    assert len(list(cache.iterdir())) == 3


def test_a_kernel_that_does_not_compile_says_which_and_why():
    broken = Kernel("pool2d_f64", KERNEL.source, {**KERNEL.macros, "SB_T": "no_such_type"})
    with pytest.raises(SparseBlockError, match=r"(?s)pool2d_f64 does not compile for sm_80.*no_such_type"):
        compiler.compiled(broken, (), "sm_80")


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "sparseblock").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SparseBlockError, match="set XDG_CACHE_HOME"):
        compiler.cubin(KERNEL, (), "sm_80")
