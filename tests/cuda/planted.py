"""What the tests of planted faults share: a library with a fault in it, and what is to catch the fault."""

from __future__ import annotations

import ctypes
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sparseblock import BlockSet, backend, ops
from sparseblock.backends.cuda import launch
from sparseblock.backends.cuda.kernels import kernels
from sparseblock.testing import Guard, check_contract

CUDA = Path(__file__).parents[2] / "csrc" / "cuda"
# Compiled once for every fault, kernels run for less time than they compile.
FLAGS = ["-std=c++17", "-O0", "-fPIC", "-ffp-contract=off", "-DSB_EMULATED"]
# What a fault in a file is planted into.
CONV2D = ("conv2d_f32", "conv2d_bf16", "conv2d_narrow_bf16")
KERNELS = {
    "pool2d.cu": ("pool2d_f32", "pool2d_bf16"),
    "pool2d.h": ("pool2d_f32", "pool2d_bf16", "pool2d_large_f32"),
    "pool2d_large.cu": ("pool2d_large_f32",),
    "maps.h": ("pool2d_f32",),
    "shuffle.cu": ("shuffle_f32",),
    "pad.cu": ("pad_f32",),
    "pad.h": ("pad_f32",),
    "pointwise.cu": ("pointwise_f32",),
    "epilogue.h": ("pointwise_f32",),
    "interpolate.cu": ("interpolate_f32",),
    "interpolate.h": ("interpolate_f32",),
    "conv2d_weight_grad.h": ("conv2d_weight_grad", "conv2d_weight_grad_depthwise"),
    "gather.cu": ("gather_f32",),
    "scatter.cu": ("scatter_f32",),
    "block_moments.cu": ("block_moments_f32",),
    "global_avg_pool2d.cu": ("global_avg_pool2d_f32",),
    "group_norm.cu": ("group_norm_f32",),
    "group_norm_statistics.cu": ("group_norm_statistics",),
    "moments.h": ("group_norm_statistics", "channel_moments"),
    "blocks_from_mask.cu": ("blocks_from_mask",),
    "block_norm.cu": ("block_norm_f32",),
    "channel_norm.cu": ("channel_norm_f32",),
    "conv2d.cu": CONV2D,
    "conv2d.h": ("conv2d_narrow_f32",),
    "conv2d_depthwise.cu": ("conv2d_depthwise_f32",),
    "conv2d_wgmma.cu": ("conv2d_wgmma_128x64_f16",),
    "conv2d_windows.cu": ("conv2d_windows_4_f16",),
    "sample.cu": ("sample_f32",),
    "policy_inputs.h": ("policy_inputs", "policy_level"),
    **{
        f"{name}.cu": (name,)
        for name in (
            "area_mean",
            "channel_moments",
            "conv2d_weight_grad",
            "conv2d_weight_grad_depthwise",
            "copy_where",
            "interpolate_input_grad",
            "picture_distance",
            "policy_conv2d",
            "policy_inputs",
            "policy_level",
            "policy_logits",
            "pool2d_input_grad",
            "pool2d_taps",
        )
    },
}


def in_blocks(case, block):
    """With half of its blocks, the first and the last among them."""
    n, _, height, width = case.out_shape
    grid = (n, -(-height // block[0]), -(-width // block[1]))
    mask = torch.rand(grid, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[-1, -1, -1] = mask[0, 0, 0] = True
    index = BlockSet.from_mask(mask, block).index
    spare = torch.nonzero(~mask)[:1].int()  # behind the count, as in a list with room for every block
    return replace(case, blocks=replace(BlockSet.from_mask(mask, block), index=torch.cat([index, spare]).contiguous()))


def contracts(samples):
    """The contract of each case, in blocks."""
    for case, block in samples:
        case = in_blocks(case, block)
        yield partial(check_contract, case)
        if case.oracle is ops.conv2d:
            yield partial(check_contract, case, Guard(channels=0))  # where 16 bytes of channels lie together


class Library:
    """Where `launch` looks kernels up: the faultless ones, of the file `path`. It keeps which were."""

    def __init__(self, path):
        self.path, self.faultless, self.launched = path, ctypes.CDLL(path), set()

    def __getattr__(self, name):
        self.launched.add(name)
        kernel = getattr(self.of(name), name)
        kernel.restype, kernel.argtypes = ctypes.c_char_p, [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        return kernel

    def of(self, name):
        return self.faultless


class FaultyLibrary(Library):
    """With a fault in the sources of some kernels. They are compiled into `folder` when they are launched: few
    are, until it is caught. The faultless library's machine runs them: its threads' stacks stay until the process
    ends.
    """

    def __init__(self, path, folder, file, there, instead):
        super().__init__(path)
        self.folder, self.faulty = folder, dict.fromkeys(KERNELS[file])
        for path in (*CUDA.glob("*.cu"), *CUDA.glob("*.h")):
            text = path.read_text()
            if path.name == file:
                assert there in text, f"{file} has no {there!r} any more"
                text = text.replace(there, instead)
            (folder / path.name).write_text(text)
        (folder / "emulated").symlink_to(CUDA / "emulated")

    def of(self, name):
        if name not in self.faulty:
            return self.faultless
        if not self.faulty[name]:
            self.faulty[name] = ctypes.CDLL(self.compiled(kernels()[name]))
        return self.faulty[name]

    def compiled(self, kernel):
        macros = {"SB_NAME": kernel.name, **kernel.macros}
        text = "".join(f"#define {macro} {value}\n" for macro, value in macros.items())
        source, made = self.folder / f"{kernel.name}.cpp", self.folder / f"{kernel.name}.so"
        source.write_text(f'{text}#include "{kernel.source}"\n')
        include = [f"-I{self.folder}", f"-I{CUDA.parent / 'include'}"]
        subprocess.run(["g++", *FLAGS, *include, "-shared", source, self.path, "-o", made], check=True)
        return made


@contextmanager
def launching(library, arch):
    """Makes the cuda backend run the kernels of a library, for an architecture. Memory without values holds NaN: what a
    fault leaves out of it must not be there from the run before.
    """
    with pytest.MonkeyPatch.context() as patch, backend("cuda"):
        patch.setenv("SPARSEBLOCK_CUDA_EMULATED", str(library.path))
        patch.setenv("SPARSEBLOCK_CUDA_EMULATED_ARCH", arch)
        patch.setattr(launch, "_emulation", lambda: library)
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills memory
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)


def passed(checks, path, arch="sm_80"):
    """Each check, which passes without a fault, and the kernels that it launches."""
    for check in checks:
        library = Library(path)
        with launching(library, arch):
            check()
        yield check, library.launched


def run_what_launches(kernels, passing):
    """Other checks could not catch a fault in these kernels."""
    for check, launched in passing:
        if launched & kernels:
            check()


def check_launched(faults, passing):
    """The checks launch a kernel of every file that faults are planted into."""
    launched = set().union(*(launched for _, launched in passing))
    assert [file for file, *_ in faults.values() if launched.isdisjoint(KERNELS[file])] == []


def check_caught(fault, passing, path, folder, arch="sm_80", errors=AssertionError):
    """A fault in the library `path` fails a check that passes without."""
    library = FaultyLibrary(path, folder, *fault)
    with launching(library, arch), pytest.raises(errors):
        run_what_launches(library.faulty.keys(), passing)
