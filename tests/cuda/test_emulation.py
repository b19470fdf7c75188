"""What stands in for a GPU is strict: what would be wrong on one only now and then is wrong here, or an error."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

CUDA = Path(__file__).parents[2] / "csrc" / "cuda"
THREADS = 64

# Every thread passes its number to the one beside it, through shared memory, a copy in flight, or its warp.
KERNELS = {
    "passes": "int *s = (int *)sb::shared_memory(); const int t = sb::thread_index();"
    " s[t] = t; sb::barrier(); out[t] = s[(t + 1) % 64];",
    "misses_a_barrier": "int *s = (int *)sb::shared_memory(); const int t = sb::thread_index();"
    " s[t] = t; out[t] = s[(t + 1) % 64];",
    "copies": "int *s = (int *)sb::shared_memory(); const int t = sb::thread_index();"
    " sb::copy_async<4>(s + t, in + t, t != 5); sb::commit_copies(); sb::wait_copies<0>(); sb::barrier();"
    " out[t] = s[(t + 1) % 64];",
    "misses_a_wait": "int *s = (int *)sb::shared_memory(); const int t = sb::thread_index();"
    " sb::copy_async<4>(s + t, in + t, true); sb::commit_copies(); sb::barrier(); out[t] = s[(t + 1) % 64];",
    "waits_for_a_stage_less": "int *s = (int *)sb::shared_memory(); const int t = sb::thread_index();"
    " sb::copy_async<4>(s + t, in + t, true); sb::commit_copies(); sb::wait_copies<1>(); sb::barrier();"
    " out[t] = s[(t + 1) % 64];",
    "votes": "const int t = sb::thread_index(); out[t] = (int)sb::vote(t % 2 == 0);",
    "shuffles": "const int t = sb::thread_index(); out[t] = sb::shuffle_xor(t, 1);",
    "diverges": "if (sb::thread_index() < 32)\n sb::barrier();\n else\n sb::barrier();",
    "diverges_in_a_warp": "const int t = sb::thread_index(); if (t % 2) out[t] = (int)sb::vote(true);"
    " else out[t] = sb::shuffle_xor(t, 1);",
    "writes_past_shared_memory": "((int *)sb::shared_memory())[64 + sb::thread_index()] = 1;",
    "copies_unaligned": "sb::copy_async<16>(sb::shared_memory() + 4, in, true); sb::commit_copies();"
    " sb::wait_copies<0>();",
}
UNTOUCHED = -1  # all bits, as poisoned shared memory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a kernel of those above on one group: (what went wrong or None, what it wrote)."""
    folder = tmp_path_factory.mktemp("emulation")
    for name, body in KERNELS.items():
        text = f'#define SB_NAME {name}\n#define SB_THREADS {THREADS}\n#include "device.h"\n'
        (folder / f"{name}.cpp").write_text(
            f"{text}SB_ENTRY(const int *in, int *out) {{ {body} (void)in; (void)out; }}\n"
        )
    library = folder / "kernels.so"
    flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fopenmp", "-shared", "-fPIC", "-DSB_EMULATED"]
    sources = [str(folder / f"{name}.cpp") for name in KERNELS]
    machine = CUDA / "emulated" / "machine.cpp"
    command = ["g++", *flags, f"-I{CUDA}", f"-I{CUDA.parent / 'include'}", *sources, str(machine), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))

    def call(name: str) -> tuple[str | None, list[int]]:
        function = getattr(loaded, name)
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        given, out = (ctypes.c_int * THREADS)(*range(100, 100 + THREADS)), (ctypes.c_int * THREADS)()
        pointers = [ctypes.c_void_p(ctypes.addressof(memory)) for memory in (given, out)]
        problem = function(1, 4 * THREADS, (ctypes.c_void_p * 2)(*map(ctypes.addressof, pointers)))
        return problem and problem.decode(), list(out)

    return call


def beside(values):
    return values[1:] + values[:1]


def test_barriers_copies_votes_and_shuffles_do_what_they_say(run):
    numbers = list(range(THREADS))
    assert run("passes") == (None, beside(numbers))
    copied = [100 + t if t != 5 else 0 for t in numbers]  # zero where it is not valid
    assert run("copies") == (None, beside(copied))
    assert run("votes") == (None, [0x55555555] * THREADS)
    assert run("shuffles") == (None, [t ^ 1 for t in numbers])


@pytest.mark.parametrize("name", ["misses_a_barrier", "misses_a_wait", "waits_for_a_stage_less"])
def test_a_race_shows(run, name):
    problem, out = run(name)
    assert problem is None
    assert UNTOUCHED in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("diverges", "barrier"),
        ("diverges_in_a_warp", "vote"),
        ("writes_past_shared_memory", "shared"),
        ("copies_unaligned", "16"),
    ],
)
def test_what_a_gpu_would_not_forgive_is_an_error(run, name, said):
    problem, _ = run(name)
    assert problem is not None
    assert name in problem
    assert said in problem
