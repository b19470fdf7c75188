"""Chains: neighbouring nodes of which each reads of the others' values only the pixels that it writes itself.

A 1x1 after a 3x3, a residual block's pointwise parts, a pool whose window is its stride: such nodes need not wait for
each other over the whole list of blocks. They run one after the other for a piece of a block, while it is in the
second-level cache (`csrc/cpu/run.cpp`). The first may read planes with a halo: whatever it reads was there before. It
is a convolution: those fetch what their next piece reads while they compute. No convolution has Winograd's tiles, which
are placed by the block, so that their bits would depend on the piece, or another padding than zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sparseblock.algorithm import ALGORITHMS
from sparseblock.backends.cpu import native
from sparseblock.grid import BlockGrid
from sparseblock.plan.concats import homes
from sparseblock.plan.ir import ChannelNorm, Conv2d, Graph, Interpolate, Node, Pointwise, Pool2d
from sparseblock.plan.macs import node_macs
from sparseblock.plan.placement import Placement, reads_within_block

CACHE_BYTES = 512 << 10  # what a piece's values may take together: the second-level cache of one core
MOST_MACS = 8  # for each byte that the nodes read and write when they run alone: above, arithmetic hides the memory
LEAST_PIXELS = 128  # of a piece on the coarsest map: below, kernels set up for too little work


@dataclass(frozen=True)
class Chain:
    """A chain and its pieces.

    Attributes:
        first, last: places in the graph's order of its first and last node; views may lie between them.
        pieces: rows and columns of a piece on the map of each of its nodes, by the node's output.
    """

    first: int
    last: int
    pieces: dict[str, tuple[int, int]]


def find_chains(
    graph: Graph,
    grid: BlockGrid | None,
    placements: dict[str, Placement],
    algorithms: Mapping[str, str],
    dtype: torch.dtype,
) -> tuple[Chain, ...]:
    """The chains of a graph; no node is in two of them, and most are in none. Without a common grid there are none.

    Args:
        algorithms: of each convolution, by the name of its output.
        dtype: what maps but the frame are stored in.
    """
    if grid is None:
        return ()
    chains: list[Chain] = []
    run: list[int] = []
    parents = homes(graph)
    fit = {node.output for node in graph.nodes if _runs_in_pieces(node, placements, algorithms)}
    sizes = _sizes(graph, dtype)
    roots = {name: _root(name, parents) for name in graph.values}
    for place, node in enumerate([*graph.nodes, None]):
        if node is not None and node.is_view:
            continue
        if run and (node is None or node.output not in fit or not _continues(node, run, roots, graph, grid)):
            chain = _chain(run, graph, placements, sizes)
            chains += [] if chain is None else [chain]
            run = []
        if node is not None and node.output in fit and (run or isinstance(node.op, Conv2d)):
            run.append(place)
    return tuple(chains)


def _root(name: str, parents: dict[str, tuple[str, int]]) -> str:
    return _root(parents[name][0], parents) if name in parents else name


def _runs_in_pieces(node: Node, placements: dict[str, Placement], algorithms: Mapping[str, str]) -> bool:
    """Whether it runs on the active blocks, whatever their size, and computes a block from maps alone.

    A gated node runs on tiles of its own, and what reads statistics needs those of the whole map.
    """
    if placements[node.output].kind != "sparse" or node.gated:
        return False
    match node.op:
        case Conv2d(padding_mode=mode):
            return mode == "zeros" and ALGORITHMS[algorithms[node.output]] is None
        case Pool2d() | Interpolate() | ChannelNorm() | Pointwise():
            return True
    return False


def _continues(node: Node, run: list[int], roots: dict[str, str], graph: Graph, grid: BlockGrid) -> bool:
    """Whether `node` reads a value that the run writes, and none of them with a halo; parts of one map count as one."""
    written = {roots[graph.nodes[place].output] for place in run}
    reads = [name for name in node.inputs if roots[name] in written]
    return (
        len(run) < native.LONGEST_CHAIN
        and bool(reads)
        and all(reads_within_block(node, name, graph, grid) for name in reads)
    )


def _chain(run: list[int], graph: Graph, placements: dict[str, Placement], sizes: dict[str, int]) -> Chain | None:
    """The run as a chain, or None where it does not pay; `sizes` are the bytes of values."""
    nodes = [graph.nodes[place] for place in run]
    blocks = {node.output: placements[node.output].block for node in nodes}
    coarsest = min(blocks, key=blocks.get)
    block = blocks[coarsest]
    if len(nodes) < 2 or any(size % block for size in blocks.values()):
        return None
    moved = [name for node in nodes for name in (*node.inputs, node.output)]
    if sum(node_macs(node, graph) for node in nodes) > MOST_MACS * sum(sizes[name] for name in moved):
        return None
    held = sum(sizes[name] for name in set(moved))
    piece = _piece(block, held / math.prod(graph.values[coarsest].shape[2:]))
    if piece is None:
        return None
    rows, cols = piece
    pieces = {name: (rows * size // block, cols * size // block) for name, size in blocks.items()}
    return Chain(run[0], run[-1], pieces)


def _sizes(graph: Graph, dtype: torch.dtype) -> dict[str, int]:
    """Bytes of every map, of one image."""
    return {
        name: (torch.float32 if name in graph.inputs else dtype).itemsize * math.prod(value.shape)
        for name, value in graph.values.items()
        if value.is_map
    }


def _piece(block: int, bytes_per_pixel: float) -> tuple[int, int] | None:
    """The largest piece of whole rows of a block that fits into the cache; a block divides into equal pieces."""
    fits = [rows for rows in range(1, block + 1) if block % rows == 0 and rows * block * bytes_per_pixel <= CACHE_BYTES]
    rows = max(fits, default=0)
    return (rows, block) if rows * block >= LEAST_PIXELS else None
