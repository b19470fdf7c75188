"""The passes of the planner, in their order. Each takes a graph and the block grid and returns a graph.

An exact plan has no grid: None.
"""

from __future__ import annotations

from sparseblock.grid import BlockGrid
from sparseblock.plan.ir import Graph
from sparseblock.plan.passes.concat_views import concat_views
from sparseblock.plan.passes.copy_concat import copy_concat
from sparseblock.plan.passes.drop_unused import drop_unused
from sparseblock.plan.passes.fuse_pointwise import fuse_pointwise
from sparseblock.plan.passes.join_slices import join_slices
from sparseblock.plan.passes.keep_statistics import keep_statistics
from sparseblock.plan.passes.split_concat import split_concat
from sparseblock.plan.passes.unlist import unlist

PASSES = (
    drop_unused,  # first: what nothing reads must not keep others from fusing
    concat_views,
    unlist,  # lists are concatenations of views
    keep_statistics,
    join_slices,
    fuse_pointwise,
    split_concat,  # after fusing: it looks at what a producer's epilogue can still take
    copy_concat,  # last: it looks at which concatenations are left
)


def run_passes(graph: Graph, grid: BlockGrid | None) -> Graph:
    for transform in PASSES:
        graph = transform(graph, grid)
    return graph
