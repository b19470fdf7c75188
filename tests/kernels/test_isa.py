"""Which instruction set runs, and what happens to the others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from native_conv import NativeConv, isas, plane

from sparseblock.backends.cpu import native
from sparseblock.testing import assert_identical


def run_with(isa: str) -> subprocess.CompletedProcess:
    script = "from sparseblock.backends.cpu import native; print(native.lib().sb_isa().decode())"
    environment = {**os.environ, "SPARSEBLOCK_ISA": isa}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


def test_the_environment_forces_one(isa):
    assert run_with(isa).stdout.strip() == isa


def test_a_missing_one_is_refused_with_what_there_is():
    failed = run_with("neon9")
    assert failed.returncode != 0
    assert failed.stderr.strip().splitlines()[-1] == (
        "sparseblock.errors.SparseBlockError: SPARSEBLOCK_ISA is neon9; "
        f"this processor and build have {', '.join(isas())}; set one of these, or unset it"
    )


def test_an_unknown_name_changes_nothing(isa):
    assert native.lib().sb_set_isa(b"neon9") == -1
    assert native.lib().sb_isa().decode() == isa


@pytest.mark.parametrize("algorithm", ["direct", "winograd_2x2", "winograd_4x4"])
@pytest.mark.parametrize("later", ["avx512", "avx2", "generic"])
def test_packed_weights_outlive_the_choice(isa, later, algorithm):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 5, 9, 8, generator=generator), torch.randn(20, 5, 3, 3, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    conv = NativeConv(weight, padding=1, algorithm=algorithm)
    before = conv(x, plane(1, 20, 9, 8, 0)[0])
    native.lib().sb_set_isa(later.encode())
    assert_identical(conv(x, plane(1, 20, 9, 8, 0)[0]), before)
