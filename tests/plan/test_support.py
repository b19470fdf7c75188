"""docs/support.md is what the code gives now; `python tests/plan/support.py NAME` writes a row anew."""

from __future__ import annotations

import pytest
from support import read, row
from zoo import ZOO

CHECKED = ("resnet18", "mobilenet_v3_large", "espnet", "espnetv2", "vdsr", "elan")
ENTRIES = {(entry.name, entry.package): entry for entry in ZOO}


@pytest.mark.parametrize("name", CHECKED)
def test_the_row_is_what_the_code_gives_now(name):
    """But for the errors, which processors differ in; `row` itself holds them to what rounding explains."""
    (key,) = (key for key in ENTRIES if key[0] == name and key[1] in ("torchvision", "tasknets"))
    assert row(ENTRIES[key])[:-2] == read()[key][:-2]


def test_every_network_has_a_row_and_runs_sparse():
    rows = read()
    assert rows.keys() == ENTRIES.keys()
    assert all(float(cells[5].removesuffix(" %")) >= 95 for cells in rows.values())
