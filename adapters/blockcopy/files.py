"""Files to write: each appears whole, or what was there stays as it was."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sparseblock import SparseBlockError


def path_of(path: object, what: str) -> Path:
    """`path` as a Path.

    Args:
        what: what it is the path of, for the message.

    Raises:
        SparseBlockError: it is none.
    """
    if not path or not isinstance(path, (str, os.PathLike)):
        raise SparseBlockError(f"{what} is {path!r}; it must be a path, a str or a pathlib.Path")
    return Path(path)


def check_writable(path: Path, suffixes: tuple[str, ...] = (), what: str = "output") -> None:
    """Leaves nothing behind.

    Raises:
        SparseBlockError: no file can be made at `path` with one of `suffixes`, or it would take the place of what is
            no regular file: a directory, a device, a pipe.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise SparseBlockError(f"{what} {path}: suffix {path.suffix!r} is not one of {', '.join(suffixes)}; change it")
    obstacle = _obstacle(path)
    if obstacle is not None:
        raise SparseBlockError(f"{what} {path}: {obstacle}")


def _obstacle(path: Path) -> str | None:
    """Why no file can be made at `path`, and what to do."""
    try:
        if not path.parent.exists():
            return f"directory {path.parent} does not exist; make it first"
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):  # to open a pipe would wait for its other end
                kind = "it is a directory" if stat.S_ISDIR(mode) else "it is no regular file"
                return f"{kind}; give the path of a file"
            path.open("ab").close()
        tempfile.TemporaryFile(dir=path.parent).close()
    except (OSError, ValueError) as error:  # ValueError: it holds a null character
        return f"{getattr(error, 'strerror', None) or error}; give a path that can be written"
    return None


def part_of(path: Path, suffix: str = "") -> Path:
    """A path beside `path` for what is not whole yet, no longer than a name may be however long that of `path` is."""
    return path.parent / f".{path.stem[:32]}.{secrets.token_hex(4)}.part{suffix}"


def replace_file(path: Path, data: bytes, what: str = "output") -> None:
    """Writes `data` to `path`, which holds it whole or is as it was before.

    Raises:
        SparseBlockError: it cannot be written.
    """
    check_writable(path, what=what)
    part = part_of(path)
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise SparseBlockError(f"{what} {path}: {error.strerror}; make room or give another path") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def replace_json(path: Path, record: dict) -> None:
    """Writes `record` to `path` as JSON; raises as `replace_file` does."""
    replace_file(path, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
