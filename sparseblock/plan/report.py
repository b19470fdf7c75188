"""What a plan does with a network, before anything runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from sparseblock.plan import report_html
from sparseblock.plan.choice import Choice
from sparseblock.plan.whole import WholeChoice


@dataclass(frozen=True)
class NodeReport:
    """One node of a plan.

    Attributes:
        name: path of the module it comes from, or its name in the captured graph.
        op: what it computes, fused parts joined by "+".
        placement: "sparse", "incremental" or "dense".
        reason: why it is not sparse, or what else is to be said.
        kernel: what computes it: "cpu", with the instruction set and the algorithm of a convolution where it is not
            the direct sum; another backend's name, on the cuda backend with the kernels of a convolution, as
            "cuda conv2d_wgmma"; "torch"; or "" where nothing has to.
        shape: of its value for one image, [c, h, w]; None where it is no feature map.
        macs: multiply-accumulates of one dense frame.
        choice: of a native convolution: its algorithm, the candidates (on a device none), and why; None for all else.
        chain: number of the chain that it is part of, whose nodes run one after the other for each piece of a block.
        memory: where its value lies: in a "plane" of its own that lasts from frame to frame; in memory that values
            share in turn ("shared"), or there too, but for the "rims" of its blocks, which last; in the "scratch" of
            the thread that runs its chain; or "" for what lies in another's, as parts of a concatenation do, or in no
            state.
        bytes: that it takes there: a stream, or in scratch a thread; of one with rims that these take.
        inputs: places in `Report.nodes` of the nodes whose values it reads; the frame is none of them.
    """

    name: str
    op: str
    placement: str
    reason: str
    kernel: str
    shape: tuple[int, ...] | None
    macs: int
    choice: Choice | None
    chain: int | None
    memory: str
    bytes: int
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """Nodes and totals of a plan; `str()` is a table, `to_json` and `to_html` hold the same.

    Attributes:
        grid: rows and columns of blocks, and pixels of a block of the frame.
        dtype: what feature maps are stored in.
        nodes: in the order in which they run.
        macs, dense_macs: of one frame, and the part of it that runs whatever is active.
        weight_bytes: of the packed weights, which the plan holds once for all states.
        plane_bytes, shared_bytes: per stream: planes that last from frame to frame, and the memory that values share.
        scratch_bytes: per thread: the pieces of values that only a chain touches. Kernels have some of their own.
        whole: of an exact plan: from which share of changed tiles on a frame runs whole.
    """

    grid: tuple[int, int, int]
    dtype: str
    nodes: tuple[NodeReport, ...]
    macs: int
    dense_macs: int
    weight_bytes: int
    plane_bytes: int
    shared_bytes: int
    scratch_bytes: int
    whole: WholeChoice | None = None

    # The table: what its columns are called, and which of them are numbers.
    columns: ClassVar = ("node", "op", "placement", "kernel", "shape", "MMAC", "KiB", "memory", "chain", "reason")
    right: ClassVar = (False, False, False, False, True, True, True, False, True, False)

    @property
    def coverage(self) -> float:
        """Share of the MACs that active blocks decide about."""
        return 1.0 - self.dense_macs / self.macs if self.macs else 1.0

    @property
    def chains(self) -> int:
        """Number of chains."""
        return len({node.chain for node in self.nodes} - {None})

    def predicted(self, fraction: float) -> float:
        """Share of the dense network's MACs when `fraction` of the blocks is active, all being alike."""
        return fraction * self.coverage + 1.0 - self.coverage

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {**asdict(self), "coverage": self.coverage}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_html(self) -> str:
        """One HTML page, which needs nothing else: totals, table, and the graph coloured by placement."""
        return report_html.page({"": self})

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells, a row a node."""
        return [_row(node) for node in self.nodes]

    def totals(self) -> list[str]:
        """What holds for the whole plan, in lines."""
        rows, cols, block = self.grid
        kinds = Counter(node.placement for node in self.nodes)
        return [
            f"{rows} x {cols} blocks of {block} px; "
            + ", ".join(f"{kinds[kind]} {kind}" for kind in ("sparse", "incremental", "dense") if kinds[kind]),
            f"{self.macs / 1e9:.3f} GMAC a frame, {100 * self.coverage:.1f} % of them sparse; "
            + ", ".join(f"{100 * p:.0f} % active: {100 * self.predicted(p):.1f} %" for p in (0.5, 0.3, 0.1)),
            f"{self.weight_bytes / 2**20:.1f} MiB of weights; "
            f"a stream, in {self.dtype}: {self.plane_bytes / 2**20:.1f} MiB of planes "
            f"and {self.shared_bytes / 2**20:.1f} MiB that values share in turn; "
            f"{self.scratch_bytes / 2**10:.0f} KiB of scratch a thread for {self.chains} chains",
            *([] if self.whole is None else [str(self.whole)]),
        ]

    def __str__(self) -> str:
        rows = [self.columns, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns) - 1)]
        lines = ["  ".join((*map(_pad, row, widths, self.right), row[-1])).rstrip() for row in rows]
        return "\n".join([*lines, "", *self.totals()])


def _row(node: NodeReport) -> tuple[str, ...]:
    shape = "" if node.shape is None else "x".join(map(str, node.shape))
    macs = f"{node.macs / 1e6:.1f}" if node.macs else ""
    chain = "" if node.chain is None else str(node.chain)
    kib = f"{node.bytes / 1024:.0f}" if node.bytes else ""
    return (node.name, node.op, node.placement, node.kernel, shape, macs, kib, node.memory, chain, node.reason)


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
