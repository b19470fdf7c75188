"""Which backend computes, and that a forced one does or the op raises."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from sparseblock import BlockSet, SparseBlockError, backend, backends, ops
from sparseblock.backends.cuda import compile, launch
from sparseblock.testing import channels_last

CPU = torch.device("cpu")


def raises(message: str):
    return pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$")


def test_the_device_decides(monkeypatch):
    monkeypatch.delenv("SPARSEBLOCK_BACKEND", raising=False)
    assert backends.selected(CPU) == "cpu"
    assert backends.selected(torch.device("xpu", 0)) == "triton"
    with raises("no backend is the default on meta; move the tensors to cpu, or use sparseblock.backend('reference')"):
        backends.selected(torch.device("meta"))


def test_the_environment_forces(monkeypatch):
    monkeypatch.setenv("SPARSEBLOCK_BACKEND", "reference")
    assert backends.selected(CPU) == "reference"
    monkeypatch.setenv("SPARSEBLOCK_BACKEND", "cudnn")
    with raises("SPARSEBLOCK_BACKEND: there is no backend 'cudnn'; the backends are cpu, cuda, reference, triton"):
        backends.selected(CPU)


def test_a_stretch_of_code_forces_over_the_environment(monkeypatch):
    monkeypatch.setenv("SPARSEBLOCK_BACKEND", "reference")
    with backend("cpu"):
        assert backends.selected(CPU) == "cpu"
        with pytest.raises(RuntimeError), backend("reference"):
            assert backends.selected(CPU) == "reference"
            raise RuntimeError
        assert backends.selected(CPU) == "cpu"
    assert backends.selected(CPU) == "reference"
    with raises("there is no backend 'tpu'; the backends are cpu, cuda, reference, triton"), backend("tpu"):
        pass
    with raises("there is no backend []; the backends are cpu, cuda, reference, triton"), backend([]):
        pass


def test_a_forced_backend_does_not_fall_back():
    with backend("cpu"), raises("the cpu backend does not compute on meta; move the tensors to cpu"):
        backends.selected(torch.device("meta"))


def test_every_op_has_every_backend():
    for op in set(ops.__all__) - {"cat_slices"}:
        for name in ("cpu", "reference", "triton"):
            assert callable(backends.implementation(name, op))


def test_a_missing_library_is_one_clear_line(tmp_path):
    """In a fresh process, with a package path that has no library."""
    script = (
        "import sparseblock, sys; from sparseblock.backends.cpu import native\n"
        f"sparseblock.__path__ = [{str(tmp_path)!r}]\n"
        "try: native.lib()\n"
        "except sparseblock.SparseBlockError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == (
        f"libsparseblock.so is not in {tmp_path}/lib; the cpu backend needs it: install with `pip install .` and leave "
        "the source tree, whose folder hides the installed package, or install with `pip install -e .`\n"
    )


def test_a_damaged_library_is_one_clear_line(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsparseblock.so").write_bytes(b"not a library")
    script = (
        "import sparseblock, sys; from sparseblock.backends.cpu import native\n"
        f"sparseblock.__path__ = [{str(tmp_path)!r}]\n"
        "try: native.lib()\n"
        "except sparseblock.SparseBlockError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r".*/libsparseblock\.so does not load \(.*\); rebuild it with `pip install \.`\n", said)


def test_an_unknown_instruction_set_is_one_clear_line():
    script = (
        "import sparseblock; from sparseblock.backends.cpu import native\n"
        "try: native.lib()\n"
        "except sparseblock.SparseBlockError as error: print(error)\n"
    )
    environment = {**os.environ, "SPARSEBLOCK_ISA": "altivec"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert len(done.stdout.splitlines()) == 1 and "altivec" in done.stdout


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_every_instruction_set_agrees_with_the_oracle(isa):
    """In a fresh process, because the choice is made once; on a processor that lacks it, the library says so."""
    script = (
        "import torch\n"
        "from sparseblock import SparseBlockError\n"
        "from sparseblock.backends.cpu import native\n"
        "from sparseblock.testing import cases, check_contract\n"
        "try: isa = native.lib().sb_isa().decode()\n"
        "except SparseBlockError as error: isa = str(error)\n"
        "else:\n"
        "    x = torch.randn(1, 20, 11, 13)\n"
        "    check_contract(cases.conv2d(x, torch.randn(37, 20, 3, 3), torch.randn(37), padding=(1, 1)))\n"
        "    check_contract(cases.conv2d(x, torch.randn(20, 1, 3, 3), padding=(1, 1), groups=20))\n"
        "    check_contract(cases.max_pool2d(x, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)))\n"
        "    check_contract(cases.interpolate(x, (22, 26), mode='bilinear'))\n"
        "    check_contract(cases.activation(x, activation='relu6'))\n"
        "print(isa)\n"
    )
    environment = {**os.environ, "SPARSEBLOCK_ISA": isa}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert isa in done.stdout


def test_the_reference_computes_in_float64():
    x = channels_last(torch.randn(1, 2, 4, 4, dtype=torch.float64))
    with backend("reference"):
        out = ops.add(x, x, BlockSet.all(1, 1, 1, 4), torch.zeros_like(x))
    assert torch.equal(out, x + x)


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [("cuda", "SPARSEBLOCK_CUDA_EMULATED", "libsparseblock_emulated.so"), ("triton", "TRITON_INTERPRET", "1")],
)
def test_a_backend_of_gpus_computes_on_cpu_tensors_only_where_it_is_stood_in_for(name, variable, value, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    with backend(name):
        for nothing in ("", "0"):
            with raises(f"the {name} backend does not compute on cpu; move the tensors to cuda"):
                backends.selected(CPU)
            monkeypatch.setenv(variable, nothing)
        monkeypatch.setenv(variable, value)
        assert backends.selected(CPU) == name
        assert backends.selected(torch.device("cuda", 1)) == name
    assert backends.selected(torch.device("cuda", 1)) == "cuda"


def test_without_triton_its_backend_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backends, "_has_triton", lambda: False)
    with backend("triton"), raises("the triton backend needs Triton: pip install 'sparseblock[triton]'"):
        backends.selected(torch.device("cuda", 0))


@pytest.mark.parametrize("name", ["core", "bindings.driver", "bindings.nvrtc"])
def test_without_cuda_core_the_cuda_backend_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, f"cuda.{name}", None)
    said = r"^the cuda backend needs cuda-core \(.*\): pip install 'sparseblock\[cuda\]'; or .*'sparseblock\[triton\]'"
    with pytest.raises(SparseBlockError, match=said):
        compile.binding(f"cuda.{name}")
    if name == "bindings.driver":
        with pytest.raises(SparseBlockError, match=said):
            launch.driver()


def test_triton_has_one_algorithm(triton_device):
    x, weight = (
        channels_last(torch.ones(1, 2, 4, 4, device=triton_device)),
        torch.ones(2, 2, 3, 3, device=triton_device),
    )
    with backend("triton"), raises("conv2d: algorithm is 'winograd_2x2', but the triton backend has 'direct' alone"):
        ops.conv2d(
            x, weight, None, BlockSet.all(1, 1, 1, 4, triton_device), torch.zeros_like(x),
            padding=1, algorithm="winograd_2x2",
        )  # fmt: skip


def test_an_op_that_a_backend_lacks_is_one_clear_line():
    with raises("fold: the cpu backend does not have it; use another, as sparseblock.backend('reference')"):
        backends.implementation("cpu", "fold")


def test_fewer_threads_than_asked_for_leave_nothing_out():
    """The threads that there are take the strips of those that are missing."""
    script = (
        "import torch\n"
        "from sparseblock.testing import cases, check_contract\n"
        "torch.set_num_threads(4)\n"
        "x = torch.randn(1, 20, 40, 70)\n"
        "check_contract(cases.conv2d(x, torch.randn(70, 20, 3, 3), padding=(1, 1)))\n"
        "check_contract(cases.max_pool2d(x, kernel_size=(2, 2), stride=(1, 1)))\n"
    )
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
