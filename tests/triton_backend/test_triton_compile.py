"""Without a GPU: every kernel of the triton backend compiles for the GPUs that it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Kernels whose maps are float32, whatever is stored.
WIDE = {
    "conv2d_depthwise_weight_grads",
    "conv2d_weight_grads",
    "group_norm_statistics",
    "pooled_input_grads",
    "resized_input_grads",
    "taps_of_maxima",
}


# The last two figures are what Triton calls an architecture and its lanes; one dtype will do to see that no kernel is
# for one vendor alone.
@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "dtypes"),
    [
        (("cuda", "80", "32"), {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}),
        (("cuda", "90", "32"), {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}),
        (("hip", "gfx942", "64"), {"bfloat16": "bf16"}),
    ],
    ids=["sm_80", "sm_90", "gfx942"],
)
def test_every_kernel_compiles(target, dtypes, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    script = Path(__file__).with_name("compile_ahead.py")
    done = subprocess.run([sys.executable, script, *target, *dtypes], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels, *made = map(str.split, done.stdout.splitlines())
    assert {name for name, *_ in made} == set(kernels) and len(kernels) > 1
    for stored in dtypes.values():
        assert {name for name, *types in made if stored in types} >= set(kernels) - WIDE, stored
