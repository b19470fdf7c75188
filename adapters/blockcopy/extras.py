"""The packages that the command line needs beyond those of the library."""

from __future__ import annotations

from importlib.util import find_spec

from sparseblock import SparseBlockError

PACKAGES = ("av", "matplotlib", "rich", "torchmetrics", "torchvision", "typer")


def check_extras() -> None:
    """Raise SparseBlockError, saying how to install them, unless all of PACKAGES are there."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise SparseBlockError(f"the command line needs {', '.join(missing)}; run: pip install 'sparseblock[video]'")
