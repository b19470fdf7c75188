"""Totals follow from the frames; what is written is finite, whole and of the stated schema."""

from __future__ import annotations

import json
import math

import av
import pytest
from blockcopy.report import Comparison, FrameRecord, Report

RUN = {"video": "v.mp4", "network": "streets", "policy": "blockcopy", "block_size": 64, "target": 0.3}


def record(frame: int, active: float, reason: str = "policy", dense: Comparison | None = None) -> FrameRecord:
    return FrameRecord(
        frame=frame,
        time_s=frame / 25,
        reason=reason,
        active_fraction=active,
        aged=0,
        macs=int(1000 * active),
        policy_macs=20,
        policy_ms=1.0,
        train_ms=2.0,
        network_ms=10 * active,
        prepare_ms=0.5,
        io_ms=4.0,
        dense=dense,
    )


@pytest.fixture
def report() -> Report:
    made = Report(dict(RUN), target=0.3)
    compared = Comparison(dense_ms=20.0, pixel_agreement=0.75, mean_iou=0.5)
    for frame in (
        record(0, 1.0, "first frame"),
        record(1, 0.2, dense=compared),
        record(2, 0.4),
        record(3, 1.0, "scene cut", dense=compared),
    ):
        made.add(frame, dense_macs=1000)
    return made


def test_totals(report):
    totals = report.totals()
    assert totals["frames"] == 4
    assert totals["forced_frames"] == 2
    assert math.isclose(totals["active_fraction"], 2.6 / 4)
    assert math.isclose(totals["active_fraction_chosen"], 0.3)
    assert math.isclose(totals["macs_vs_dense"], (650 + 20) / 1000)
    # 3 ms of policy and training, and 2, 4 and 10 ms of network; the first frame does not count.
    assert math.isclose(totals["fps"], 3000 / 25)
    assert totals["compared_frames"] == 2
    assert math.isclose(totals["speed_up"], 20 * 3 / 25)
    assert totals["pixel_agreement"] == 0.75
    assert totals["mean_iou"] == 0.5
    assert totals["psnr_db"] is None


def test_without_comparison_or_choice_there_are_nulls_and_no_error():
    made = Report(dict(RUN), target=0.3)
    made.add(record(0, 1.0, "first frame"), 1000)
    totals = made.totals()
    assert totals["active_fraction_chosen"] is None
    assert totals["speed_up"] is None
    assert totals["fps"] > 0


def test_the_json_has_its_schema_and_only_finite_numbers(report, out):
    report.write(out / "r.json")

    def refuse(constant: str):
        raise AssertionError(constant)

    read = json.loads((out / "r.json").read_text(), parse_constant=refuse)
    assert read["schema"] == "blockcopy-report/1"
    assert read["status"] == "complete"
    assert list(read) == ["schema", "status", "run", "environment", "totals", "frames"]
    assert [f["frame"] for f in read["frames"]] == [0, 1, 2, 3]
    assert read["frames"][1]["dense"] == {
        "dense_ms": 20.0,
        "pixel_agreement": 0.75,
        "mean_iou": 0.5,
        "psnr_db": None,
        "box_agreement": None,
    }
    assert sorted(p.name for p in out.iterdir()) == ["r.json", "r.png"]


@pytest.mark.parametrize(
    "dense", [None, Comparison(20.0, psnr_db=41.0), Comparison(20.0, 0.9, 0.8), Comparison(20.0, box_agreement=0.7)]
)
def test_the_plot_is_a_picture(out, dense):
    made = Report(dict(RUN), target=0.3)
    for frame in range(3):
        made.add(record(frame, 0.3, dense=dense), 1000)
    made.write(out / "r.json")
    with av.open(str(out / "r.png")) as picture:
        image = next(picture.decode(video=0)).to_ndarray(format="rgb24")
    assert image.shape[0] > 400
    assert image.std() > 0
