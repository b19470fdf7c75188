"""Which networks run, how much of them block-sparse, what does not and why, and how exact: docs/support.md.

`python tests/plan/support.py` writes the table, and `python tests/plan/support.py resnet18 elan` those of its rows;
`test_support.py` checks that it is what the code gives now.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import torch
from error_bound import depth_tolerance
from torch import nn
from torch.utils import _pytree as pytree
from zoo import ZOO, Entry

import sparseblock
from sparseblock.plan import Plan
from sparseblock.plan.ir import Conv2d, Torch
from sparseblock.plan.passes import run_passes
from sparseblock.plan.reference import Reference
from sparseblock.plan.trace import trace

PAGE = Path(__file__).parent.parent.parent / "docs" / "support.md"
ACTIVE = 0.5  # of the blocks, in the frame with a mask
SHOWN = 3  # operators that are named in a row
HEAD = """# What runs, and how

Networks as their packages make them, unedited, with random weights and settled batch norms, float32, on small frames.
`python tests/plan/support.py` makes this table; a test checks rows of it.

- *convs*, *all*: the share of the convolutions' MACs, and of all MACs, that the active blocks decide about.
- *nodes*: sparse, incremental (a global statistic kept exact by the active blocks) and dense (on whole planes, whatever
  is active).
- *not sparse*: the most frequent operators that are not, and why.
- *error*: largest difference to PyTorch in float32 over the largest value of the output. *All*: with all blocks active,
  to the network itself. *Mask*: with about half of the blocks active in the second frame, to
  `where(active, dense, previous)` node by node. (Deep random networks amplify rounding: PyTorch's own distance to
  float64 is 1e-04 for fcn_resnet50.)

The detectors are their backbone, pyramid and heads; as a whole they run in parts (`docs/design/0010-nested-models.md`).

Tried as well, whole and with the same checks, but of a licence (AGPL-3.0) that keeps them out of the table: models of
ultralytics 8.4.190, as `YOLO("yolo11n.yaml").model` has them. YOLOv3-tiny, v5n, v6n, v8n (also segmentation, oriented
boxes, poses, P6 and GhostNet), v9t, v10n, 11n (also segmentation and poses), 12n and 26n (also poses): at least 99 % of
their MACs are sparse, attention and the last arithmetic of corners and key points are dense, and errors are 6e-06 to
8e-04.

"""
COLUMNS = (
    *("network", "package", "frame", "block", "GMAC", "convs", "all", "nodes"),
    *("not sparse", "error, all", "error, mask"),
)


def row(entry: Entry) -> tuple[str, ...]:
    """The row of a network; one that does not capture says why.

    Raises:
        AssertionError: an error is larger than rounding explains.
    """
    torch.manual_seed(0)
    network = settle(entry.make(), torch.rand(2, entry.channels, *entry.frame))
    images = torch.rand(2, 1, entry.channels, *entry.frame)
    where = (entry.name, entry.package, "×".join(map(str, entry.frame)), str(entry.block))
    try:
        graph, signature = trace(network, images[0])
    except sparseblock.SparseBlockError as error:
        return (*where, "", "not captured", "", "", str(error), "", "")
    grid = sparseblock.BlockGrid(*entry.frame, entry.block)
    with torch.no_grad():
        plan = Plan(run_passes(graph, grid), signature, grid)
        dense = pytree.tree_leaves(network(images[0]))
    state = plan.new_state()
    mask = torch.rand(1, grid.rows, grid.cols) < ACTIVE
    mask[0, 0, 0], mask[0, -1, -1] = True, False
    reference = Reference(graph, grid, torch.float32)
    reference(images[0], torch.ones_like(mask[0]))
    error_all = difference(pytree.tree_leaves(plan(images[0], None, state)), dense, reference)
    expected = reference(images[1], mask[0])
    error_mask = difference(pytree.tree_leaves(plan(images[1], mask, state)), expected, reference)
    nodes = plan.report().nodes
    convs: Counter[str] = Counter()
    for node, report in zip(plan.graph.nodes, nodes, strict=True):
        if isinstance(node.op, Conv2d) or (isinstance(node.op, Torch) and "conv" in node.label):
            convs[report.placement] += report.macs
    kinds = Counter(report.placement for report in nodes)
    return (
        *where,
        f"{plan.macs / 1e9:.2f}",
        f"{100 * convs['sparse'] / max(convs.total(), 1):.1f} %",
        f"{100 * (1 - plan.dense_macs / plan.macs):.1f} %",
        " / ".join(str(kinds[kind]) for kind in ("sparse", "incremental", "dense")),
        _reasons(nodes),
        f"{error_all:.0e}",
        f"{error_mask:.0e}",
    )


@torch.no_grad()
def settle(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """`network` in eval mode, batch norms as after training: statistics of their inputs, scales and shifts that differ.

    Random networks otherwise swell or die out with depth, and an error then says nothing. Without batch norms,
    convolutions keep the size of values by He's initialisation.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
        norm.train()
        norm.momentum = None  # the average over all that is seen
        norm.reset_running_stats()
    for module in network.modules() if not norms else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network(images)
    return network.eval()


def difference(actual: list, expected: list, reference: Reference) -> float:
    """The largest over the outputs, each relative to its largest value; no larger than rounding explains, twice."""
    worst = 0.0
    for got, want in zip(actual, expected, strict=True):
        if isinstance(got, torch.Tensor) and got.is_floating_point():
            off = float((got - want).abs().max())
            assert off <= 2 * depth_tolerance(reference), f"off by {off}"
            worst = max(worst, off / float(want.abs().max()))
    return worst


def _reasons(nodes: tuple) -> str:
    """The most frequent operators that are not sparse, each with its first reason up to the details."""
    count: Counter[str] = Counter()
    why: dict[str, str] = {}
    for node in nodes:
        if node.placement != "sparse" and node.kernel:
            op = node.op.removeprefix("aten.").split(".")[0]
            count[op] += 1
            why.setdefault(op, node.reason.split(",")[0].split(":")[0])
    named = [f"{times} {op}: {why[op]}" for op, times in count.most_common(SHOWN)]
    return "; ".join([*named, *(["…"] if len(count) > SHOWN else [])]).replace("|", "\\|")


def read() -> dict[tuple[str, str], tuple[str, ...]]:
    """The rows of the page by network and package."""
    rows = {}
    for line in PAGE.read_text().splitlines() if PAGE.exists() else ():
        if line.startswith("| ") and not line.startswith((f"| {COLUMNS[0]} ", "| --- ")):
            cells = tuple(line.removeprefix("| ").removesuffix(" |").split(" | "))
            rows[cells[:2]] = cells
    return rows


def write(rows: dict[tuple[str, str], tuple[str, ...]]) -> None:
    """The page, in the order of the zoo."""
    ordered = [rows[entry.name, entry.package] for entry in ZOO if (entry.name, entry.package) in rows]
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *ordered]
    PAGE.write_text(HEAD + "".join("| " + " | ".join(cells) + " |\n" for cells in lines))


if __name__ == "__main__":
    for chosen in ZOO:
        if not sys.argv[1:] or chosen.name in sys.argv[1:]:
            made = row(chosen)
            print(" | ".join(made), flush=True)
            write({**read(), made[:2]: made})
