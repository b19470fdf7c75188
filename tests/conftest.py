"""What every test shares: how hypothesis runs, and where real clips and weights are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `ci` is deterministic and bounded; `search` looks for what it has not yet seen: HYPOTHESIS_PROFILE=search.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, max_examples=100, **_COMMON)
settings.register_profile("search", max_examples=1000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real weights and videos, which no checkout carries."""
    folder = Path(os.environ["SPARSEBLOCK_DATA"])
    if not (folder / "videos").is_dir() or not (folder / "weights").is_dir():
        pytest.fail(f"SPARSEBLOCK_DATA is {folder}; it must name a folder that holds videos/ and weights/")
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the folder, tests that need it are not part of the run, which says so."""
    if "SPARSEBLOCK_DATA" in os.environ:
        return
    need = [item for item in items if "data" in getattr(item, "fixturenames", ())]
    if need:
        items[:] = [item for item in items if item not in need]
        config.hook.pytest_deselected(items=need)
        config.get_terminal_writer().line(f"\n{len(need)} tests need SPARSEBLOCK_DATA, which is not set: left out")
