"""Which algorithm computes each convolution of a plan: measured on this machine, once per shape, when the plan is made.

A choice holds for every frame: another algorithm at another density would give the same block another rounding.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from ctypes import byref
from dataclasses import dataclass

import torch

from sparseblock.algorithm import ALGORITHMS, obstacle
from sparseblock.backends.cpu import native, packed_weight
from sparseblock.errors import SparseBlockError
from sparseblock.plan.ir import Conv2d, Graph, Node
from sparseblock.plan.placement import Placement

LEAST_CHANNELS = 32  # with fewer, the transforms cost what the products save
SHARE = 4  # a quarter of a map's blocks is measured, which is about what a frame of video has active,
PIXELS = 2048  # but no more than this many pixels, unless one block has more
ROUNDS = 5
MARGIN = 1.1  # what another algorithm must gain over the direct sum, so that noise decides nothing


@dataclass(frozen=True)
class Candidate:
    """An algorithm that a convolution could take.

    Attributes:
        algorithm: "direct", "winograd_2x2" or "winograd_4x4".
        seconds: for the blocks that were measured; None where it was not.
        reason: why it was chosen or rejected.
    """

    algorithm: str
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class Choice:
    """The algorithm of one convolution, and every candidate.

    Attributes:
        algorithm: what runs.
        candidates: all algorithms, the direct one first.
        measured: on what, e.g. "8 blocks of 16x16, 2 threads"; "" where nothing was.
    """

    algorithm: str
    candidates: tuple[Candidate, ...]
    measured: str = ""


@dataclass(frozen=True)
class _Shape:
    """What a measurement depends on."""

    channels: int
    out_channels: int
    padding: tuple[int, int]
    block: tuple[int, int]
    blocks: int
    isa: bytes
    threads: int


def choose(graph: Graph, placements: dict[str, Placement], pinned: str | Mapping[str, str] | None) -> dict[str, Choice]:
    """The choice for every native convolution, by the name of its output.

    Args:
        pinned: an algorithm for every convolution that it can compute (the direct one for the others), or the algorithm
            of each convolution by the name of its output, as `Plan.algorithms` has them; None: what measures fastest.

    Raises:
        SparseBlockError: `pinned` names an unknown algorithm or convolution, lacks one, or has one that cannot be
            computed so.
    """
    convs = [node for node in graph.nodes if isinstance(node.op, Conv2d)]
    if pinned is None:
        return {node.output: _measured(node, graph, placements[node.output]) for node in convs}
    if isinstance(pinned, Mapping) and (unknown := sorted(pinned.keys() - {node.output for node in convs})):
        raise SparseBlockError(
            f"compile: algorithms names {unknown[0]!r}, which is no convolution here; "
            "pass Plan.algorithms of the same network"
        )
    by_name = pinned if isinstance(pinned, Mapping) else dict.fromkeys((node.output for node in convs), pinned)
    return {node.output: _pinned(node, by_name, isinstance(pinned, Mapping)) for node in convs}


def _pinned(node: Node, by_name: Mapping[str, str], strict: bool) -> Choice:
    algorithm = by_name.get(node.output)
    if algorithm not in ALGORITHMS:
        raise SparseBlockError(
            f"compile: algorithms has {algorithm!r} for convolution {node.output!r}; it must be one of "
            f"{', '.join(ALGORITHMS)}: pass one for all, Plan.algorithms of the same network, or None to measure"
        )
    against = _obstacle(algorithm, node)
    if against and strict:
        raise SparseBlockError(
            f"compile: algorithms has {algorithm!r} for convolution {node.output!r}, but {against}; use 'direct'"
        )
    if against:
        candidates = (Candidate("direct", None, f"{algorithm} is pinned, but {against}"),)
        return Choice("direct", candidates)
    return Choice(algorithm, (Candidate(algorithm, None, "pinned"),))


def _measured(node: Node, graph: Graph, placement: Placement) -> Choice:
    conv = node.op
    against = {name: _obstacle(name, node) or _hopeless(name, conv) for name in ALGORITHMS}
    able = tuple(name for name, reason in against.items() if reason is None)
    rejected = [Candidate(name, None, reason) for name, reason in against.items() if reason is not None]
    if able == ("direct",):
        return Choice("direct", (Candidate("direct", None, "the only one"), *rejected))
    height, width = graph.values[node.output].shape[2:]
    block = (placement.block, placement.block) if placement.kind == "sparse" else (height, width)
    block = (min(block[0], height), min(block[1], width))
    total = math.ceil(height / block[0]) * math.ceil(width / block[1])
    blocks = max(1, min(total // SHARE, PIXELS // (block[0] * block[1])))
    k, c = conv.weight.shape[:2]
    shape = _Shape(c, k, conv.padding, block, blocks, native.lib().sb_isa(), torch.get_num_threads())
    seconds = _seconds(shape)
    best = min(able, key=lambda name: seconds[name])
    if seconds["direct"] < MARGIN * seconds[best]:
        best = "direct"
    candidates = [Candidate(name, seconds[name], _verdict(name, best, seconds)) for name in able]
    measured = f"{blocks} blocks of {block[0]}x{block[1]}, {shape.threads} threads"
    return Choice(best, (*candidates, *rejected), measured)


def _verdict(name: str, best: str, seconds: dict[str, float]) -> str:
    if name == best:
        return "fastest" if seconds[name] == min(seconds.values()) else f"within {MARGIN - 1:.0%} of the fastest"
    return f"{seconds[name] / seconds[best]:.2f} times the time of {best}"


def _obstacle(algorithm: str, node: Node) -> str | None:
    if node.gated and algorithm != "direct":
        return "it takes a gate, whose tiles may cut an algorithm's"
    conv = node.op
    geometry = (conv.weight.shape[2:], conv.stride, conv.dilation, conv.groups, conv.transposed)
    return obstacle(algorithm, *geometry, conv.padding_mode)


def _hopeless(algorithm: str, conv: Conv2d) -> str | None:
    fewest = min(conv.weight.shape[:2])
    if algorithm == "direct" or fewest >= LEAST_CHANNELS:
        return None
    return f"{fewest} channels: below {LEAST_CHANNELS} it is not tried"


@functools.cache
def _seconds(shape: _Shape) -> dict[str, float]:
    """Seconds of each algorithm on the blocks of `shape`, side by side on a plane of their own.

    The least of a few interleaved rounds. Remembered as long as the process: compiling again chooses the same.
    """
    rows = max(1, math.isqrt(shape.blocks))
    cols = math.ceil(shape.blocks / rows)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))[: shape.blocks].int()
    index = torch.cat([torch.zeros(shape.blocks, 1, dtype=torch.int32), places], 1).contiguous()
    count = torch.tensor([shape.blocks], dtype=torch.int32)
    height, width = rows * shape.block[0], cols * shape.block[1]
    border = max(*shape.padding, 2)
    memory = torch.zeros(1, height + 2 * border, width + 2 * border, shape.channels)
    x = memory[:, border : border + height, border : border + width].permute(0, 3, 1, 2)
    out = torch.zeros(1, height, width, shape.out_channels).permute(0, 3, 1, 2)
    planes = (native.plane_of(x, border), native.plane_of(out), native.blocks_of(index, count, shape.block))
    weight = torch.zeros(shape.out_channels, shape.channels, 3, 3)
    runs = {name: _run(name, shape, weight, *planes) for name in ALGORITHMS}
    least = dict.fromkeys(runs, math.inf)
    for round_ in range(1 + ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_:  # the first one warms up
                least[name] = min(least[name], time.perf_counter() - start)
    return least


def _run(algorithm: str, shape: _Shape, weight: torch.Tensor, x, out, blocks) -> Callable[[], None]:
    window = (1, 3, 3, 1, 1, *shape.padding, 1, 1, 0, native.PAD_MODES["zeros"])
    conv = native.Conv2d(shape.channels, shape.out_channels, *window, native.ALGORITHMS[algorithm])
    packed = packed_weight.pack(conv, weight)
    conv.packed_weight = packed.data_ptr()
    epilogue = native.epilogue_of(activation="relu")

    def run() -> None:
        native.lib().sb_conv2d_run(
            byref(conv), byref(epilogue), byref(x), None, byref(blocks), byref(out), shape.threads
        )
        assert packed is not None  # what `conv` points to lives as long as this function

    return run
