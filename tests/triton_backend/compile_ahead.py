"""Compiles the kernels that the samples launch, for a GPU that is not here; prints a line for each.

    python compile_ahead.py cuda 80 32 float32 bfloat16

A process of its own: kernels that were decorated where TRITON_INTERPRET is set do not compile.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from samples import gradients, samples
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

import sparseblock
from sparseblock import ops
from sparseblock.backends import triton as package
from sparseblock.testing.gradients import grads_of

BINARIES = {"cuda": "cubin", "hip": "hsaco"}
OPTIONS = ("num_warps", "num_stages")
kind, arch, lanes, *stored = sys.argv[1:]
target = GPUTarget(kind, int(arch) if arch.isdigit() else arch, int(lanes))
seen = {}  # kernels, by all that a compilation depends on


def compile_it(kernel: JITFunction, *arguments, grid, warmup, **given) -> None:
    """What a launch would compile: integers of 1 are constants, multiples of 16 are known to be ones."""
    options = {name: given.pop(name) for name in OPTIONS if name in given}
    signature, constants, attributes = {}, {}, {}
    for place, (name, parameter) in enumerate(zip(kernel.arg_names, kernel.params, strict=True)):
        value = arguments[place] if place < len(arguments) else given[name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        signature[name] = mangle_type(value)
        number = value.data_ptr() if isinstance(value, torch.Tensor) else value
        if type(number) is int and number % 16 == 0:
            attributes[(place,)] = [["tt.divisibility", 16]]
    key = repr((kernel.__name__, signature, constants, attributes, options))
    if key in seen:
        return
    seen[key] = kernel
    source = ASTSource(kernel, signature, constants, attributes)
    binary = triton.compile(source, target=target, options=options).asm[BINARIES[kind]]
    assert binary.startswith(b"\x7fELF")
    print(kernel.__name__, *{given[1:] for given in signature.values() if given.startswith("*")}, flush=True)


modules = [
    importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
]
functions = {value for module in modules for value in vars(module).values() if isinstance(value, JITFunction)}
print(*sorted(function.__name__ for function in functions if "tl.program_id" in function.src))

JITFunction.run = compile_it
os.environ["TRITON_INTERPRET"] = "1"  # now the backend takes CPU tensors
with sparseblock.backend("triton"):
    for name in stored:
        dtype = getattr(torch, name)
        for case in samples(dtype):
            sums = case.oracle in (ops.block_moments, ops.block_norm)  # float32, whatever is stored
            out = torch.empty(case.out_shape, dtype=torch.float32 if sums else dtype)
            out = out.contiguous(memory_format=torch.channels_last)
            maps = {name: x.contiguous(memory_format=torch.channels_last) for name, x in case.maps.items()}
            case.run(maps, case.blocks, out)
of_ops = set(seen.values())  # backward passes launch these too, but they are compiled
JITFunction.run = lambda kernel, *arguments, **given: kernel in of_ops or compile_it(kernel, *arguments, **given)
for case in gradients():
    grads_of(case, torch.ones(case.out_shape), torch.zeros(case.out_shape), "triton", torch.float32)
