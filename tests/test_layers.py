"""Imports point only downwards, and importing costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Folder or file -> what it must never import, besides the layers above it.
LAYERS = [
    ("sparseblock/errors.py", "sparseblock/profiling.py", "sparseblock/activations.py"),
    ("sparseblock/algorithm.py", "sparseblock/grid.py", "sparseblock/seeded.py"),
    ("sparseblock/blocks.py", "sparseblock/backends"),
    ("sparseblock/cache.py", "sparseblock/ops", "sparseblock/dense.py"),
    ("sparseblock/testing", "sparseblock/plan"),
    ("adapters/tasknets", "adapters/blockcopy", "adapters/skipconv"),
]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "adapters" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int | None:
    """The layer of a module of this project; None for the package itself, which only gathers names."""
    for number, paths in enumerate(LAYERS):
        for path in paths:
            name = module_of(ROOT / path)
            if module == name or module.startswith(name + "."):
                return number
    return None


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere; for `from a import b` also a.b, which may be one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted([*(ROOT / "sparseblock").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    own = layer_of(module_of(path))
    if module_of(path) == "sparseblock":
        return
    assert own is not None, f"{path.relative_to(ROOT)} has no layer; give it one in LAYERS"
    for module in imports(path):
        layer = layer_of(module)
        assert layer is None or layer <= own, f"{path.relative_to(ROOT)} imports {module} of a higher layer"


def test_the_reference_shares_no_code_with_the_kernels():
    for path in (ROOT / "sparseblock" / "backends" / "reference").glob("*.py"):
        assert not any(module.startswith("sparseblock.backends.cpu") for module in imports(path)), path
    for path in (ROOT / "sparseblock" / "backends" / "cpu").glob("*.py"):
        assert not any(module.startswith("sparseblock.backends.reference") for module in imports(path)), path


def test_adapters_know_no_kernels_and_task_networks_no_runtime():
    for path in (ROOT / "adapters").rglob("*.py"):
        assert not any(module.startswith("sparseblock.backends") for module in imports(path)), path
    for path in (ROOT / "adapters" / "tasknets").rglob("*.py"):
        assert not any(module.split(".")[0] == "blockcopy" for module in imports(path)), path


def test_only_the_command_line_of_blockcopy_knows_task_networks():
    """The runtime takes any network."""
    front = {"cli", "commands", "demo", "overlay", "report", "session"}
    for path in (ROOT / "adapters" / "blockcopy").rglob("*.py"):
        knows = any(module.split(".")[0] == "tasknets" for module in imports(path))
        assert not knows or path.stem in front, path


def test_kernels_know_neither_torch_nor_python():
    for path in [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cpp")]:
        included = [line for line in path.read_text().splitlines() if line.startswith("#include")]
        assert not any(word in line for line in included for word in ("torch", "ATen", "c10", "Python.h")), path


def test_importing_loads_no_library_no_hypothesis_no_planner_and_touches_no_gpu():
    script = (
        "import sys, sparseblock, torch\n"
        "from sparseblock.backends.cpu import native\n"
        "assert native.lib.cache_info().currsize == 0, 'the kernels are loaded'\n"
        "assert not torch.cuda.is_initialized(), 'CUDA is initialised'\n"
        "loaded = [name for name in ('hypothesis', 'sparseblock.plan', 'sparseblock.testing') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_public_names():
    import sparseblock

    assert sorted(sparseblock.__all__) == [
        "BlockGrid",
        "BlockSet",
        "CompiledState",
        "DevicePlan",
        "ExactPlan",
        "FeatureCache",
        "Plan",
        "SparseBlockError",
        "active",
        "backend",
        "calibrate",
        "compile",
        "explain",
        "ops",
        "profiling",
        "testing",
        "verify",
    ]
    assert all(hasattr(sparseblock, name) for name in sparseblock.__all__)
    assert isinstance(sparseblock.__version__, str)
