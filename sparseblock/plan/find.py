"""Which submodules of a model become plans, when the model as a whole cannot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.capture import Signature, check_model
from sparseblock.plan.carry import carry
from sparseblock.plan.ir import Graph
from sparseblock.plan.nested import NestedPlan, frame_shape
from sparseblock.plan.parts import Call, first_map, holds_convolution, largest, record
from sparseblock.plan.passes import run_passes
from sparseblock.plan.plan import Plan
from sparseblock.plan.strides import stride_by_size, track_strides
from sparseblock.plan.trace import trace_call

Traced = dict[Call, tuple[Graph, Signature]]


def compile_parts(
    model: nn.Module,
    example_frame: Any,
    block_size: int,
    parts: Sequence[str] | None,
    left: str,
    algorithms: str | None,
) -> NestedPlan:
    """A plan with the submodules `parts`, or the largest that can be captured, as its parts.

    `left` says why the model did not capture as a whole; the other arguments are those of `sparseblock.compile`.

    Raises:
        SparseBlockError: as `sparseblock.compile`.
    """
    check_model(model)
    what = type(model).__name__
    nothing = left or f"compile: {what} has no submodule that can be captured and reads maps of the frame"
    if parts is None and not holds_convolution(model):
        raise SparseBlockError(nothing)
    _, size = frame_shape(example_frame)
    grid = BlockGrid(*size, block_size)
    frame = pytree.tree_map_only(torch.Tensor, lambda image: image.detach().clone(), example_frame[:1])
    try:
        calls, macs = record(model, frame)
    except Exception as error:
        raise SparseBlockError(
            f"compile: {what} itself fails on the example ({type(error).__name__}: {error}); check the model and the "
            "size and channels of example_frame"
        ) from error
    traced = _search(model, calls) if parts is None else _named(model, calls, parts)
    if not traced:
        raise SparseBlockError(nothing)
    start = next(iter(traced))
    way = carry(frame, grid, lambda image: first_map(model, start.part, image))
    strides = {tuple(largest(start.maps()).shape[2:]): way.stride}
    plans: dict[str, list] = {}
    for call, (graph, signature) in traced.items():
        sizes = [tuple(shape.shape[2:]) for shape in call.maps()]
        own = [strides.get(size) or stride_by_size((way.grid.height, way.grid.width), size) for size in sizes]
        if None in own:
            if parts is None:
                continue  # maps of something else than the frame, such as what a detector cuts out for one object
            raise SparseBlockError(
                f"compile: part {call.part!r} reads a map of {list(sizes[own.index(None)])}, which is no whole part of "
                f"the frame's {[way.grid.height, way.grid.width]}; leave it out of parts="
            )
        graph = track_strides(graph, own)
        _learn(strides, graph)
        with torch.no_grad():
            plan = Plan(run_passes(graph, way.grid), signature, way.grid, algorithms=algorithms)
            plans.setdefault(call.part, []).append(plan)
    return NestedPlan(model, plans, grid, way, macs, left)


def _named(model: nn.Module, calls: list[Call], parts: Sequence[str]) -> Traced:
    """The calls of the submodules that the user names."""
    paths = {module: path for path, module in model.named_modules()}
    chosen = set()
    for part in parts:
        try:
            chosen.add(paths[model.get_submodule(part)])
        except AttributeError:
            near = ", ".join(name for name, _ in model.named_children())
            raise SparseBlockError(
                f"compile: {type(model).__name__} has no submodule {part!r}; its children are {near}"
            ) from None
    for part in chosen:
        if not any(call.part == part for call in calls):
            raise SparseBlockError(
                f"compile: part {part!r} holds no convolution or is not called when the model runs; "
                "leave it out of parts="
            )
        if any(part.startswith(other + ".") for other in chosen):
            raise SparseBlockError(f"compile: part {part!r} lies inside of another part; name one of them")
    traced: Traced = {}
    for call in calls:
        if call.part in chosen:
            if not _reads_maps(call):
                shapes = [list(x.shape) for x in call.maps()]
                raise SparseBlockError(
                    f"compile: part {call.part!r} gets {shapes}; a part reads float32 maps [n, c, h, w] of the frame"
                )
            traced[call] = trace_call(model.get_submodule(call.part), *call.example())
    return traced


def _search(model: nn.Module, calls: list[Call]) -> Traced:
    """The calls of the largest submodules of which every call can be captured, in order."""
    by_part: dict[str, list[Call]] = {}
    for call in calls:
        by_part.setdefault(call.part, []).append(call)
    traced: Traced = {}

    def visit(path: str, module: nn.Module) -> None:
        own = by_part.get(path, [])
        if own and all(map(_reads_maps, own)):
            try:
                traced.update({call: trace_call(module, *call.example()) for call in own})
                return
            except SparseBlockError:
                pass  # smaller ones may do
        for name, child in module.named_children():
            if holds_convolution(child):
                visit(f"{path}.{name}" if path else name, child)

    visit("", model)
    return {call: traced[call] for call in calls if call in traced}


def _reads_maps(call: Call) -> bool:
    maps = call.maps()
    return bool(maps) and all(
        x.dim() == 4 and x.shape[0] == 1 and min(x.shape) > 0 and x.dtype == torch.float32 for x in maps
    )


def _learn(strides: dict[tuple[int, int], Fraction], graph: Graph) -> None:
    """The strides of all sizes of map that a part makes: what a later part reads is of these."""
    for value in graph.values.values():
        if value.is_map and value.stride is not None:
            strides.setdefault(value.shape[2:], value.stride)
