"""`sparseblock.explain`: why each convolution of a plan runs on the kernel it does."""

from __future__ import annotations

from dataclasses import replace

from sparseblock.errors import SparseBlockError
from sparseblock.plan.nested import NestedPlan
from sparseblock.plan.plan import Plan
from sparseblock.plan.report import NodeReport
from sparseblock.plan.resize import check_one_size


def explain(plan: Plan | NestedPlan, node: str | None = None) -> str:
    """What computes a convolution; on the CPU every candidate with its measured time and the reason for its choice or
    rejection. On a GPU it follows from the convolution and its maps; the name is how kernels of csrc/cuda/kernels.txt
    begin: conv2d_wgmma is Hopper's own, conv2d multiplies by mma.sync, or in float32 without tensor cores.

    Args:
        node: one convolution, by the name that `plan.report()` gives it, in a plan in parts "part/name"; None: all of
            them.

    Raises:
        SparseBlockError: there is no convolution of that name, or `plan` is none.

    Example:
        >>> print(sparseblock.explain(plan, "layer1.0.conv1"))
    """
    check_one_size("explain", plan)
    if not isinstance(plan, (Plan, NestedPlan)):
        raise SparseBlockError(f"explain: plan is a {type(plan).__name__}; it must be a Plan or NestedPlan")
    plans = {f"{part}/": inner for part, inner in plan.parts.items()} if isinstance(plan, NestedPlan) else {"": plan}
    convs = [
        replace(row, name=part + row.name)
        for part, inner in plans.items()
        for row in inner.report().nodes
        if row.choice is not None
    ]
    if node is not None:
        chosen = [row for row in convs if row.name == node]
        if not chosen:
            raise SparseBlockError(
                f"explain: there is no convolution {node!r}; there are {', '.join(row.name for row in convs) or 'none'}"
            )
        convs = chosen
    return "\n".join(map(_lines, convs))


def _lines(row: NodeReport) -> str:
    measured = f" (measured on {row.choice.measured})" if row.choice.measured else ""
    lines = [f"{row.name}: {row.op}, {row.kernel}{measured}"]
    for candidate in row.choice.candidates:
        spent = "" if candidate.seconds is None else f"{candidate.seconds * 1e3:.3f} ms"
        lines.append(f"  {candidate.algorithm:<12}  {spent:>11}  {candidate.reason}".rstrip())
    return "\n".join(lines)
