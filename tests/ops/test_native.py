"""The ctypes mirror of the C interface has the header's layout."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

from sparseblock.backends.cpu import native

HEADER = Path(__file__).parents[2] / "csrc" / "include" / "sparseblock.h"


def test_structs_have_the_sizes_and_offsets_of_the_header(tmp_path):
    """A C program prints every size and offset; a field that the mirror lacks shows in the size."""
    lines, expected = [], []
    for name, struct in native.STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        expected.append(f"{name} {ctypes.sizeof(struct)}")
        for field, _ in struct._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            expected.append(f"{name}.{field} {getattr(struct, field).offset}")
    enums = ["F32", "BF16", "F16", "IDENTITY", "RELU", "CLAMP", "PRELU", "ELU", "SIGMOID", "TANH", "SILU", "GELU"]
    enums += ["GELU_TANH", "MISH", "SOFTPLUS", "HARDSIGMOID", "HARDSWISH", "ADD", "MULTIPLY"]
    enums += ["POOL_MAX", "POOL_AVG", "NEAREST", "BILINEAR", "DIRECT", "WINOGRAD_2X2", "WINOGRAD_4X4"]
    enums += ["OP_CONV2D", "OP_POOL2D", "OP_INTERPOLATE", "OP_POINTWISE"]
    enums += ["OP_BLOCK_MOMENTS", "OP_GLOBAL_AVG_POOL2D", "OP_GROUP_NORM", "OP_PAD", "OP_SHUFFLE"]
    enums += ["OP_CHANNEL_NORM", "SOFTMAX", "UNIT_LENGTH", "UNIT_VARIANCE"]
    enums += ["PIXEL_SHUFFLE", "PIXEL_UNSHUFFLE", "CHANNEL_SHUFFLE"]
    for name in enums:
        lines.append(f'printf("{name} %d\\n", SB_{name});')
        expected.append(f"{name} {getattr(native, name)}")
    source = tmp_path / "layout.c"
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{\n'
        + "\n".join(lines)
        + "\n}\n"
    )
    program = tmp_path / "layout"
    compiler = shutil.which("cc") or shutil.which("gcc")
    subprocess.run([compiler, "-std=c11", "-Wall", "-Werror", str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines()
    assert printed == expected


def test_every_function_of_the_header_has_a_signature():
    declared = {
        word.split("(")[0].lstrip("*")
        for line in HEADER.read_text().splitlines()
        if line.startswith("SB_API")
        for word in line.split()
        if "(" in word and word.startswith(("sb_", "*sb_"))
    }
    assert declared == set(native._FUNCTIONS)
