"""Policies on disk."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch

from blockcopy.files import replace_file
from sparseblock import SparseBlockError


def write(state: dict, path: Path) -> None:
    """Writes a state to `path`, which changes only when the new file is whole.

    Raises:
        SparseBlockError: the file cannot be written.
    """
    data = io.BytesIO()
    torch.save(state, data)
    replace_file(path, data.getvalue(), "BlockCopy: policy file")


def read(path: Path) -> dict:
    """Reads what `write` wrote. Loads tensors and numbers only, never code.

    Raises:
        SparseBlockError: the file is missing, damaged or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On damaged data the unpickler raises nearly anything: IndexError, struct.error, AssertionError, ...
        reason = getattr(error, "strerror", None) or "it is damaged or something else"
        raise SparseBlockError(
            f"BlockCopy: no policy can be read from {path}: {reason}; give a file that BlockCopy.save wrote"
        ) from error
    if not isinstance(state, dict) or not {"name", "policy", "standardise"} <= state.keys():
        raise SparseBlockError(f"BlockCopy: {path} holds no policy; give a file that BlockCopy.save wrote")
    return state


def number(value: object, name: str) -> float:
    """`value`, read from a file.

    Raises:
        TypeError: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise TypeError(f"{name} is {value!r}, not a number")
    return value
