"""Pictures of results: time over the share of active blocks, beside the dense network's and the ideal."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt


def plot(record: dict, path: Path) -> None:
    """A panel for every number of threads and dtype of a record with rows, a line for every row; to `path`, a PNG."""
    panels: dict[tuple[int, str], list[tuple[str, dict[float, float]]]] = {}
    for row in record["rows"]:
        dense = row["seconds"][row["baseline"]]
        for prefix, dtype in (("", row.get("dtype", "float32")), ("bfloat16 ", "bfloat16")):
            line = {
                float(key.removeprefix(prefix)): seconds / dense
                for key, seconds in row["seconds"].items()
                if key.startswith(prefix) and key.removeprefix(prefix)[:1].isdigit()
            }
            if line:
                panels.setdefault((row["threads"], dtype), []).append((row["row"], line))
    width = min(len(panels), 3)
    figure, axes = plt.subplots(
        math.ceil(len(panels) / width), width, figsize=(6 * width, 5 * math.ceil(len(panels) / width)), squeeze=False
    )
    for axis, ((threads, dtype), lines) in zip(axes.flat, sorted(panels.items()), strict=False):
        for name, line in lines:
            axis.plot(line.keys(), line.values(), marker=".", label=name)
        ends = (min(min(line) for _, line in lines), 1.0)
        axis.plot(ends, ends, color="black", linestyle=":", label="dense time × share")
        axis.set(xscale="log", yscale="log", xlabel="share of active blocks", ylabel="time / dense time")
        axis.set_title(f"{dtype}, {threads} thread{'s' * (threads > 1)}")
        axis.grid(which="both", alpha=0.2)
        axis.legend(fontsize=7)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    machine = record["machine"]
    figure.suptitle(f"{record['suite']}: {machine['processor']}, torch {machine['torch']}, {record['date']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
