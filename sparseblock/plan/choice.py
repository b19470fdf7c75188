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

from sparseblock.algorithm import ALGORITHMS, obstacle, products
from sparseblock.backends.cpu import native, packed_weight
from sparseblock.errors import SparseBlockError
from sparseblock.plan.ir import Conv2d, Graph, Node
from sparseblock.plan.placement import Placement

LEAST_CHANNELS = 32  # with fewer, the transforms cost what the products save
SHARES = (16, 4)  # a sixteenth and a quarter of a map's blocks are measured, little and much motion of a video,
PIXELS = 2048  # but no more than this many pixels, unless one block has more
ROUNDS = 5
MARGIN = 1.1  # what another algorithm must gain over the direct sum, so that noise decides nothing


@dataclass(frozen=True)
class Candidate:
    """An algorithm that a convolution could take.

    Attributes:
        algorithm: a key of `native.ALGORITHMS`.
        seconds: for the blocks that were measured, where those are of two counts the geometric mean; None where it was
            not.
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
        measured: on what, e.g. "2 and 8 blocks of 16x16, 2 threads"; "" where nothing was.
    """

    algorithm: str
    candidates: tuple[Candidate, ...]
    measured: str = ""


@dataclass(frozen=True)
class _Shape:
    """What a measurement depends on."""

    candidates: tuple[str, ...]
    channels: int
    weight: tuple[int, ...]
    groups: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    dtype: torch.dtype
    block: tuple[int, int]
    counts: tuple[int, ...]  # of blocks
    isa: bytes
    threads: int


def choose(
    graph: Graph,
    placements: dict[str, Placement],
    pinned: str | Mapping[str, str] | None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Choice]:
    """The choice for every native convolution, by the name of its output.

    Args:
        pinned: an algorithm for every convolution that it can compute (the direct one for the others), or the algorithm
            of each convolution by the name of its output, as `Plan.algorithms` has them; None: what measures fastest.
        dtype: what maps are stored in.

    Raises:
        SparseBlockError: `pinned` names an unknown algorithm or convolution, lacks one, or has one that cannot be
            computed so.
    """
    convs = [node for node in graph.nodes if isinstance(node.op, Conv2d)]
    if pinned is not None and not isinstance(pinned, (str, Mapping)):
        raise SparseBlockError(
            f"compile: algorithms is {pinned!r}; it must be the name of one for all, Plan.algorithms of the same "
            "network, or None to measure"
        )
    if pinned is None:
        return {node.output: _measured(node, graph, placements[node.output], dtype) for node in convs}
    if isinstance(pinned, Mapping) and (unknown := sorted(pinned.keys() - {node.output for node in convs})):
        raise SparseBlockError(
            f"compile: algorithms names {unknown[0]!r}, which is no convolution here; "
            "pass Plan.algorithms of the same network"
        )
    by_name = pinned if isinstance(pinned, Mapping) else dict.fromkeys((node.output for node in convs), pinned)
    return {node.output: _pinned(node, by_name, isinstance(pinned, Mapping), dtype) for node in convs}


def _pinned(node: Node, by_name: Mapping[str, str], strict: bool, dtype: torch.dtype) -> Choice:
    algorithm = by_name.get(node.output)
    if algorithm not in native.ALGORITHMS:
        raise SparseBlockError(
            f"compile: algorithms has {algorithm!r} for convolution {node.output!r}; it must be one of "
            f"{', '.join(native.ALGORITHMS)}: pass one for all, Plan.algorithms of the same network, or None to measure"
        )
    against = _obstacle(algorithm, node, dtype)
    if against and strict:
        raise SparseBlockError(
            f"compile: algorithms has {algorithm!r} for convolution {node.output!r}, but {against}; use 'direct'"
        )
    if against:
        candidates = (Candidate("direct", None, f"{algorithm} is pinned, but {against}"),)
        return Choice("direct", candidates)
    return Choice(algorithm, (Candidate(algorithm, None, "pinned"),))


def _measured(node: Node, graph: Graph, placement: Placement, dtype: torch.dtype) -> Choice:
    conv = node.op
    height, width = graph.values[node.output].shape[2:]
    block = (placement.block, placement.block) if placement.kind == "sparse" else (height, width)
    block = (min(block[0], height), min(block[1], width))
    against = {name: _obstacle(name, node, dtype) or _hopeless(name, conv, block) for name in native.ALGORITHMS}
    able = tuple(name for name, reason in against.items() if reason is None)
    rejected = [Candidate(name, None, reason) for name, reason in against.items() if reason is not None]
    if able == ("direct",):
        return Choice("direct", (Candidate("direct", None, "the only one"), *rejected))
    total = math.ceil(height / block[0]) * math.ceil(width / block[1])
    counts = sorted({max(1, min(total // share, PIXELS // (block[0] * block[1]))) for share in SHARES})
    window = (conv.groups, conv.stride, conv.dilation)
    channels = conv.weight.shape[1] * conv.groups
    where = (block, tuple(counts), native.lib().sb_isa(), torch.get_num_threads())
    shape = _Shape(able, channels, tuple(conv.weight.shape), *window, dtype, *where)
    seconds = _seconds(shape)
    best = min(able, key=lambda name: seconds[name])
    if seconds["direct"] < MARGIN * seconds[best]:
        best = "direct"
    candidates = [Candidate(name, seconds[name], _verdict(name, best, seconds)) for name in able]
    measured = f"{' and '.join(map(str, counts))} blocks of {block[0]}x{block[1]}, {shape.threads} threads"
    return Choice(best, (*candidates, *rejected), measured)


def _verdict(name: str, best: str, seconds: dict[str, float]) -> str:
    if name == best:
        return "fastest" if seconds[name] == min(seconds.values()) else f"within {MARGIN - 1:.0%} of the fastest"
    return f"{seconds[name] / seconds[best]:.2f} times the time of {best}"


def _obstacle(algorithm: str, node: Node, dtype: torch.dtype) -> str | None:
    if node.gated and ALGORITHMS[algorithm]:
        return "it takes a gate, whose tiles may cut an algorithm's"
    conv = node.op
    geometry = (conv.weight.shape[2:], conv.stride, conv.groups, conv.weight.shape[1])
    against = obstacle(algorithm, *geometry, dtype, conv.transposed, conv.padding_mode)
    return against or packed_weight.missing(native.ALGORITHMS[algorithm])


def _hopeless(algorithm: str, conv: Conv2d, block: tuple[int, int]) -> str | None:
    """Why an algorithm that could compute the convolution cannot be the fastest."""
    if ALGORITHMS[algorithm] is None:
        return None
    fewest = min(conv.weight.shape[:2])
    if fewest < LEAST_CHANNELS:
        return f"{fewest} channels: below {LEAST_CHANNELS} it is not tried"
    taken = products(algorithm, block, conv.dilation)
    if taken >= products("direct", block, conv.dilation):
        blocks = f"blocks of {block[0]}x{block[1]} at dilation {conv.dilation[0]}x{conv.dilation[1]}"
        return f"{blocks} leave its tiles empty: {taken:.3g} products a pixel"
    return None


@functools.cache
def _seconds(shape: _Shape) -> dict[str, float]:
    """Seconds of each algorithm on blocks of `shape`, side by side in the midst of a plane of their own; the geometric
    mean over its counts of blocks.

    No window leaves the frame there, as those of most blocks do not. Weights come from memory, as in a frame, which
    reads all others before it reads them again. The least of a few interleaved rounds. Remembered as long as the
    process: compiling again chooses the same.
    """
    most = max(shape.counts)
    rows = max(1, math.isqrt(most))
    cols = math.ceil(most / rows)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).int()
    index = torch.cat([torch.zeros(len(places), 1, dtype=torch.int32), places], 1).contiguous()
    height, width = rows * shape.block[0], cols * shape.block[1]
    axes = zip((height, width), shape.stride, shape.dilation, shape.weight[2:], strict=True)
    sides = [side * stride + dilation * (taps - 1) for side, stride, dilation, taps in axes]
    x = torch.zeros(1, *sides, shape.channels, dtype=shape.dtype).permute(0, 3, 1, 2)
    out = torch.zeros(1, height, width, shape.weight[0], dtype=shape.dtype).permute(0, 3, 1, 2)
    planes = (native.plane_of(x), native.plane_of(out))
    weight = torch.zeros(shape.weight)
    runs = {name: _run(name, shape, weight, *planes) for name in shape.candidates}
    logs = dict.fromkeys(runs, 0.0)
    for count in torch.tensor(shape.counts, dtype=torch.int32):
        blocks = native.blocks_of(index, count, shape.block)
        least = dict.fromkeys(runs, math.inf)
        for round_ in range(1 + ROUNDS):
            for name, run in runs.items():
                spent = run(blocks)
                if round_:  # the first one warms up
                    least[name] = min(least[name], spent)
        logs = {name: logs[name] + math.log(least[name]) for name in runs}
    return {name: math.exp(log / len(shape.counts)) for name, log in logs.items()}


def _run(algorithm: str, shape: _Shape, weight: torch.Tensor, x, out) -> Callable[[native.Blocks], float]:
    """What computes a list of blocks by this algorithm and returns its seconds."""
    window = (*weight.shape[2:], *shape.stride, 0, 0, *shape.dilation, 0, native.PAD_MODES["zeros"])
    conv = native.Conv2d(shape.channels, len(weight), shape.groups, *window, native.ALGORITHMS[algorithm])
    packed = packed_weight.pack(conv, weight)
    conv.packed_weight = packed.data_ptr()
    epilogue = native.epilogue_of(activation="relu")

    def run(blocks: native.Blocks) -> float:
        packed_weight.evict(packed)
        start = time.perf_counter()
        native.lib().sb_conv2d_run(
            byref(conv), byref(epilogue), byref(x), None, byref(blocks), byref(out), shape.threads
        )
        return time.perf_counter() - start

    return run
