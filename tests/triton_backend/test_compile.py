"""Without a GPU: every kernel of the triton backend compiles for the GPUs that it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("target", ["cuda 80 32", "cuda 90 32", "hip gfx942 64"])
def test_every_kernel_compiles(target, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    script = Path(__file__).with_name("compile_ahead.py")
    done = subprocess.run([sys.executable, script, *target.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels, *made = map(str.split, done.stdout.splitlines())
    assert len(kernels) > 1
    for stored in ("fp32", "bf16", "fp16"):
        assert sorted({name for name, *types in made if stored in types}) == kernels, stored
