"""The documentation shows what is true now: its Python runs, in order, file by file, and the paths it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    top = r"`((?:sparseblock|adapters|csrc|bench|tests|docs)/[\w./-]*\w\.\w+)`"
    missing += [path for path in re.findall(top, text) if not (ROOT / path).exists()]
    assert not missing, f"{page.relative_to(ROOT)} names what is not there: {missing}"
