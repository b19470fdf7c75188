"""A file appears whole, or what was there stays: whatever its path names."""

from __future__ import annotations

import errno
import os
import stat
from fractions import Fraction
from pathlib import Path

import pytest
from blockcopy import BlockCopy
from blockcopy.files import check_writable, replace_file
from blockcopy.report import Report
from blockcopy.video_io import VideoWriter
from film import network

from sparseblock import SparseBlockError


def _save(path: object) -> None:
    BlockCopy(network()).save(path)


def _report(path: Path) -> None:
    Report({}, target=0.3).write(path)


def _video(path: Path) -> None:
    VideoWriter(path, Fraction(25)).close()


WRITERS = [(_save, "p.mp4"), (_report, "r.json"), (_video, "v.mp4"), (check_writable, "f.mp4")]


@pytest.mark.parametrize("write, name", WRITERS)
@pytest.mark.parametrize("make, is_kind", [(os.mkfifo, stat.S_ISFIFO), (os.mkdir, stat.S_ISDIR)])
def test_only_a_regular_file_is_replaced(write, name, make, is_kind, tmp_path):
    path = tmp_path / name
    make(path)
    kind = "it is a directory" if make is os.mkdir else "it is no regular file"
    with pytest.raises(SparseBlockError, match=f"{name}: {kind}; give the path of a file$"):
        write(path)
    assert is_kind(path.stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("write, name", WRITERS)
def test_a_link_to_what_is_no_regular_file_is_none_either(write, name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / name).symlink_to(tmp_path / "pipe")
    with pytest.raises(SparseBlockError, match=f"{name}: it is no regular file; "):
        write(tmp_path / name)
    assert (tmp_path / name).is_symlink()


@pytest.mark.parametrize("path", ["", None, 5, b"p.pt"])
@pytest.mark.parametrize("method", ["save", "load"])
def test_what_is_no_path(method, path):
    with pytest.raises(SparseBlockError) as error:
        getattr(BlockCopy(network()), method)(path)
    assert str(error.value) == f"BlockCopy: path is {path!r}; it must be a path, a str or a pathlib.Path"


@pytest.mark.parametrize(
    "name, reason",
    [
        ("file/p.pt", "Not a directory; give a path that can be written"),
        ("none/p.pt", "directory {parent} does not exist; make it first"),
        ("p" * 256, "File name too long; give a path that can be written"),
        ("p\0.pt", "embedded null byte; give a path that can be written"),
        (".", "it is a directory; give the path of a file"),
    ],
)
def test_a_policy_that_cannot_be_written(name, reason, tmp_path):
    (tmp_path / "file").write_text("before")
    path = tmp_path / name
    with pytest.raises(SparseBlockError) as error:
        BlockCopy(network()).save(str(path))
    assert str(error.value) == f"BlockCopy: policy file {path}: {reason.format(parent=path.parent)}"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("name", ["p" * 255, "\N{GREEK SMALL LETTER PI}" * 127])
def test_the_longest_name_has_room_for_what_is_not_whole_yet(name, tmp_path):
    BlockCopy(network()).save(tmp_path / name)
    BlockCopy(network()).load(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("fails", ["replace", "unlink"])
def test_a_failed_write_leaves_what_was_there(fails, tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("before")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    if fails == "unlink":
        monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(SparseBlockError) as told:
        replace_file(path, b"after")
    assert str(told.value) == f"output {path}: No space left on device; make room or give another path"
    assert path.read_text() == "before"
    if fails == "replace":
        assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
