"""Kernels are tested on every instruction set that this machine runs, not only on the one that it would choose."""

from __future__ import annotations

import pytest
from native_conv import isas

from sparseblock.backends.cpu import native


@pytest.fixture(params=isas())
def isa(request):
    """The instruction set that kernels run on during the test."""
    lib = native.lib()
    chosen = lib.sb_isa()
    assert lib.sb_set_isa(request.param.encode()) == 0
    yield request.param
    lib.sb_set_isa(chosen)
