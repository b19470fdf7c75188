"""Committed results of benchmarks are whole: what was measured, where, when, and every time of every row."""

from __future__ import annotations

import datetime
import importlib
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

WIDE = {"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"}
ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "bench" / "results").glob("*.json"))


@pytest.fixture
def app(monkeypatch):
    """`python -m bench`, which is not installed; the library that is comes first."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    return importlib.import_module("bench.__main__").app


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_record_is_whole(path):
    record = json.loads(path.read_text())
    assert path.stem.split("_")[0] == record["suite"]
    datetime.date.fromisoformat(record["date"])
    assert {"processor", "cores", "torch", "python", "commit"} <= record["machine"].keys()
    if "clips" in record:
        for clip in record["clips"]:
            assert {"clip", "network", "frames", "methods"} <= clip.keys()
            for method in clip["methods"].values():
                assert {"score", "error"} & method.keys()
                assert method.get("mean_ms", 1) > 0  # what repeats another's results takes no time of its own
        return
    if record["suite"] == "gpu":
        assert "gpu" in record["machine"]
        assert "layers" not in record or record["ceilings"].keys() == {"flops", "bytes"}
        for row in [*record.get("layers", []), *record["networks"]]:
            assert {"row", "macs"} <= row.keys() and all(seconds > 0 for seconds in row["seconds"].values())
        assert all(row["seconds"] > 0 and 0 < row["active"] <= 1 for row in record["policy"])
        return
    if record["suite"] == "memory":
        for row in record["memory"]:
            assert {"PyTorch", "ONNX Runtime", "OpenVINO", "sparseblock"} <= row["bytes"].keys()
            assert all(taken["made"] > 0 and taken["runs"] > 0 for taken in row["bytes"].values())
        return
    names = [set(row["seconds"]) for row in record["rows"]]
    assert names and all(name == names[0] for name in names)
    for row in record["rows"]:
        assert {"row", "threads", "macs", "baseline"} <= row.keys()
        assert row["baseline"] in row["seconds"]
        assert all(seconds > 0 for seconds in row["seconds"].values())


def test_there_are_records():
    assert {path.stem for path in RESULTS} >= {"conv2d", "network"}


@pytest.mark.parametrize(
    ("command", "content", "said"),
    [
        ("table", None, "does not exist"),
        ("table", "{}", "is no record"),
        ("table", "[]", "is no record"),
        ("table", "{", "is no JSON"),
        ("plot", None, "does not exist"),
        ("plot", "{}", "is no record"),
    ],
)
def test_a_file_that_is_no_record_is_one_clear_error(app, tmp_path, command, content, said):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    ran = CliRunner().invoke(app, [command, str(path)], env=WIDE)
    assert ran.exit_code == 2
    assert said in ran.output


def test_pictures_need_their_folder(app, tmp_path):
    ran = CliRunner().invoke(app, ["plot", str(RESULTS[0]), "--output", str(tmp_path / "no")], env=WIDE)
    assert ran.exit_code == 2
    assert "does not exist" in ran.output
