"""What stands in for a GPU is strict: what would be wrong on one only now and then is wrong here, or an error."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
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
    "ends_without_a_wait": "",
    "writes_past_shared_memory": "((int *)sb::shared_memory())[64 + sb::thread_index()] = 1;",
    "copies_unaligned": "sb::copy_async<16>(sb::shared_memory() + 4, in, true); sb::commit_copies();"
    " sb::wait_copies<0>();",
}
# The same of what Hopper alone has: two rows of 32 numbers, or matrices of ones, and a signal behind them.
MATRICES = 8192  # bytes
HOPPER = f"""char *s = sb::shared_memory(); const int t = sb::thread_index();
 sb::SharedAddress signal = s + {MATRICES};
 if (t == 0) sb::prepare(signal, 1);
 const int line = 128; int *number = (int *)(s + t / 32 * line + (t % 32 * 4 ^ t / 32 << 4));
 sb::TensorMap map = {{(const char *)in, {{32, 2, 1, 1}}, {{line, 16, 16}}, {{32, 2, 1, 1}}, {{1, 1, 1, 1}}, 4}};
 float sums[8][4] = {{}};
 for (int i = t; i < {MATRICES} / 2; i += 64) ((uint16_t *)s)[i] = 0x3c00;
 sb::barrier();
 (void)signal, (void)number, (void)map, (void)sums;
"""
EXPECT = "if (t == 0) sb::arrive_and_expect(signal, 256); "
COPY = "if (t == 0) sb::copy_box(s, map, signal, 0, 0, 0, 0); "
MULTIPLY = (
    "sb::begin_products(); sb::multiply_add(sums, sb::matrix(s, 1024), sb::matrix(s, 1024), sb::half());"
    " sb::commit_products(); "
)
GATHER = (
    "if (t == 0) sb::prepare(signal, 64); sb::barrier();"
    f" for (int i = t; i < {MATRICES} / 16; i += 64) sb::copy_async<16>(s + 16 * i, in, false);"
    " sb::arrive_when_copied(signal);"
)
HOPPER_KERNELS = {
    "boxes": f"{EXPECT} {COPY} sb::wait(signal, 0); out[t] = *number;",
    "boxes_from_outside": f"{EXPECT} {COPY.replace('0, 0, 0, 0', '0, 1, 0, 0')} sb::wait(signal, 0); out[t] = *number;",
    "reads_before_the_signal": f"{EXPECT} {COPY} sb::barrier(); out[t] = *number;",
    "waits_for_the_round_before": f"{EXPECT} {COPY} sb::barrier(); sb::wait(signal, 1); out[t] = *number;",
    "waits_for_nobody": "sb::wait(signal, 0);",
    "waits_for_more_than_comes": f"{EXPECT.replace('256', '384')} {COPY} sb::wait(signal, 0);",
    "boxes_to_between": f"{EXPECT} {COPY.replace('s,', 's + 128,')} sb::wait(signal, 0);",
    "boxes_to_outside": f"{EXPECT} {COPY.replace('s,', f's + {MATRICES},')} sb::wait(signal, 0);",
    "boxes_from_between": f"map.data += 4; {EXPECT} {COPY} sb::wait(signal, 0);",
    "multiplies": f"{MULTIPLY} sb::wait_products<0>(); out[t] = (int)sums[0][0];",
    "takes_sums_too_early": f"{MULTIPLY} sb::wait_products<1>(); out[t] = (int)sums[0][0];",
    "writes_factors_too_early": f"{MULTIPLY} sb::barrier(); *number = -1; sb::barrier(); sb::wait_products<0>();"
    " out[t] = sums[0][0] == 16.0f;",
    "gathers": f"{GATHER} sb::wait_for_copies(signal, 0); {MULTIPLY} sb::wait_products<0>(); out[t] = (int)sums[0][0];",
    "reads_before_copies_arrive": f"{GATHER} sb::barrier(); out[t] = ((int *)s)[4 * t];",
    "waits_for_copies_as_for_boxes": f"{GATHER} sb::wait(signal, 0);",
    "waits_for_more_copies_than_arrive": f"{GATHER.replace('64)', '65)')} sb::wait_for_copies(signal, 0);",
    "multiplies_outside": f"{MULTIPLY.replace('s, 1024', f's + {MATRICES}, 1024')} sb::wait_products<0>();",
}
UNTOUCHED = -1  # all bits, as poisoned shared memory
# What only the address sanitizer sees, and says in which line: these begin in line 1000.
OUTSIDE = {
    "reads_past_a_tensor": "out[t] = in[t + 1];",
    "reads_before_a_tensor": "out[t] = in[t - 1];",
    "writes_past_a_tensor": "out[t + 1] = t;",
    "copies_from_past_a_tensor": "sb::copy_async<16>(s, in + 64, t == 5);",
    "boxes_from_past_a_tensor": "map.sizes[1] = 3, sb::copy_box(s, map, signal, 0, 1, 0, 0);",
    "reads_past_shared_memory": f"out[t] = ((int *)s)[{MATRICES} / 4 + 2 + t];",
    "reads_before_shared_memory": "out[t] = ((int *)s)[t - 1];",
}
SANITIZED = ("-fsanitize=address", "-fsanitize-recover=address")
RIGHT = ("boxes", "multiplies", "gathers")


def library(bodies: dict[str, str], folder: Path, *flags: str) -> Path:
    """The stand-in with a kernel of each body."""
    for name, body in bodies.items():
        text = f'#define SB_NAME {name}\n#define SB_THREADS {THREADS}\n#include "hopper.h"\n'
        before = "sb::await_kernels_before();" if body else ""
        (folder / f"{name}.cpp").write_text(
            f"{text}SB_ENTRY(const int *in, int *out) {{ {before} {body} (void)in; (void)out; }}\n"
        )
    made = folder / "kernels.so"
    flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fopenmp", "-shared", "-fPIC", "-DSB_EMULATED", *flags]
    sources = [*(folder / f"{name}.cpp" for name in bodies), CUDA / "emulated" / "machine.cpp"]
    subprocess.run(["g++", *flags, f"-I{CUDA}", f"-I{CUDA.parent / 'include'}", *sources, "-o", made], check=True)
    return made


def called(path: Path, name: str, shared: int) -> tuple[str | None, list[int]]:
    """A kernel of a library on one group: (what went wrong or None, what it wrote)."""
    function = getattr(ctypes.CDLL(str(path)), name)
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    given, out = (ctypes.c_int * THREADS)(*range(100, 100 + THREADS)), (ctypes.c_int * THREADS)()
    pointers = [ctypes.c_void_p(ctypes.addressof(memory)) for memory in (given, out)]
    problem = function(1, shared, (ctypes.c_void_p * 2)(*map(ctypes.addressof, pointers)))
    return problem and problem.decode(), list(out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a kernel of those above."""
    every = KERNELS | {name: HOPPER + body for name, body in HOPPER_KERNELS.items()}
    path = library(every, tmp_path_factory.mktemp("emulation"))
    return lambda name: called(path, name, 4 * THREADS if name in KERNELS else MATRICES + 8)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """What went wrong, or None, in the kernels that read or write OUTSIDE, and some that are right, over the stand-in
    built with the address sanitizer: that has to come first in a process, and to know all that is allocated.
    """
    bodies = {name: HOPPER + HOPPER_KERNELS[name] for name in RIGHT}
    bodies |= {name: f"{HOPPER}\n#line 1000\n{what}\n" for name, what in OUTSIDE.items()}
    path = library(bodies, tmp_path_factory.mktemp("sanitized"), "-g", *SANITIZED)
    script = (
        "import json, sys; import test_emulation as t;"
        "print(json.dumps({name: t.called(sys.argv[1], name, t.MATRICES + 8)[0] for name in sys.argv[2:]}))"
    )
    runtime = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = os.environ | {
        "LD_PRELOAD": runtime.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=0:suppress_equal_pcs=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-c", script, path, *bodies]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def beside(values):
    return values[1:] + values[:1]


def test_barriers_copies_votes_and_shuffles_do_what_they_say(run):
    numbers = list(range(THREADS))
    assert run("passes") == (None, beside(numbers))
    copied = [100 + t if t != 5 else 0 for t in numbers]  # zero where it is not valid
    assert run("copies") == (None, beside(copied))
    assert run("votes") == (None, [0x55555555] * THREADS)
    assert run("shuffles") == (None, [t ^ 1 for t in numbers])


def test_boxes_and_products_do_what_they_say(run):
    numbers = list(range(100, 100 + THREADS))
    assert run("boxes") == (None, numbers)
    assert run("boxes_from_outside") == (None, numbers[32:] + 32 * [0])
    assert run("multiplies") == (None, [16] * THREADS)
    assert run("gathers") == (None, [0] * THREADS)


def test_products_read_and_write_as_late_as_they_may(run):
    assert run("takes_sums_too_early") == (None, [0] * THREADS)
    problem, right = run("writes_factors_too_early")
    assert problem is None
    assert not all(right)


@pytest.mark.parametrize(
    "name",
    [
        "misses_a_barrier",
        "misses_a_wait",
        "waits_for_a_stage_less",
        "reads_before_the_signal",
        "reads_before_copies_arrive",
    ],
)
def test_a_race_shows(run, name):
    problem, out = run(name)
    assert problem is None
    assert UNTOUCHED in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("diverges", "barrier"),
        ("diverges_in_a_warp", "vote"),
        ("ends_without_a_wait", "has not waited for the kernels before"),
        ("writes_past_shared_memory", "shared"),
        ("copies_unaligned", "16"),
        ("waits_for_nobody", "a signal that nobody gives"),
        ("waits_for_the_round_before", "a signal that nobody gives"),
        ("waits_for_copies_as_for_boxes", "wait_for_copies"),
        ("waits_for_more_copies_than_arrive", "a signal that nobody gives"),
        ("waits_for_more_than_comes", "a signal that nobody gives"),
        ("boxes_to_between", "not where a swizzle begins"),
        ("boxes_to_outside", "outside of"),
        ("boxes_from_between", "multiples of 16 bytes"),
        ("multiplies_outside", "outside of the shared memory"),
    ],
)
def test_what_a_gpu_would_not_forgive_is_an_error(run, name, said):
    problem, _ = run(name)
    assert problem is not None
    assert name in problem
    assert said in problem


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_kernel_passes_the_address_sanitizer(sanitized, name):
    assert sanitized[name] is None


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_address_sanitizer_says_where_a_kernel_leaves_its_memory(sanitized, name):
    problem = sanitized[name]
    assert problem is not None
    assert ("use-after-poison" if "shared" in name else "heap-buffer-overflow") in problem
    assert ("WRITE" if "writes" in name else "READ") in problem
    assert f"{name}.cpp:1000" in problem
