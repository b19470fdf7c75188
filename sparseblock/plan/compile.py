"""`sparseblock.compile`: from a module to a plan."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sparseblock.backends import selected
from sparseblock.backends.cpu import native
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.capture import Uncapturable, one_at_a_time
from sparseblock.plan.device_plan import DevicePlan
from sparseblock.plan.exact import ExactPlan, Tolerance
from sparseblock.plan.find import compile_parts
from sparseblock.plan.gates import check_names, mark_gated
from sparseblock.plan.nested import NestedPlan, is_image_list
from sparseblock.plan.passes import run_passes
from sparseblock.plan.plan import Plan
from sparseblock.plan.report import Report
from sparseblock.plan.residual_gates import Gates, find_gates
from sparseblock.plan.resize import ResizablePlan
from sparseblock.plan.strides import frame_size
from sparseblock.plan.trace import on_host, trace
from sparseblock.plan.whole import checked_share


@one_at_a_time
def compile(
    model: nn.Module,
    example_frame: Any,
    block_size: int = 128,
    parts: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
    algorithms: str | Mapping[str, str] | None = None,
    mode: str = "grid",
    tolerance: Tolerance = None,
    gates: Sequence[str] | Gates = (),
    on_resize: str = "error",
    whole_from: float | None = None,
) -> Plan | NestedPlan | ResizablePlan:
    """A plan that runs `model` on frames of one size, block by block.

    The model is captured as it is and not changed; later changes to its weights do not reach the plan. Every operator
    that has a block-sparse rule runs on the active blocks; any other runs dense on whole planes, and `Plan.report()`
    says so and why.

    Hooks are captured with the model: what they compute is part of the plan, but what else they do, such as to keep
    features for later, they do while it is captured and not in frames.

    A model that cannot be captured whole, because what it does depends on values, keeps its Python; the largest of its
    submodules that can be captured and read maps of the frame become plans of their own, its *parts*.

    Args:
        model: any module in eval mode, float32 on the cpu, that takes one frame [n, c, h, w].
        example_frame: float32 [n, c, h, w]; only its c, h and w count: streams belong to the state. A module that reads
            several maps, in a list, tuple or dict, gets an example of that; the largest of them is then the frame. A
            detector that takes a list of images [c, h, w] gets such a list; its parts are found by running it once.
        block_size: pixels of the frame along both sides of a block. Maps whose stride does not divide it run dense.
        parts: paths of the submodules that are to be the parts, such as ["backbone", "rpn.head"]; the rest of the model
            then stays Python. By default the model is captured whole where it can be. Parts are float32, of the grid.
        dtype: what feature maps are stored in: torch.float32, torch.bfloat16 or torch.float16. Weights and sums are
            float32 in any case, and so is the frame; every map is rounded once, when it is stored. Operators without a
            rule get float32. Outputs that are maps [n, c, h, w] have this dtype; what else torch makes of them, such as
            boxes, is not rounded: it is float32. Exact plans are float32.
        algorithms: how convolutions are computed. None: every candidate is timed once per shape of convolution, at the
            current number of threads, and the fastest is taken; the process remembers it. Algorithms differ in their
            rounding: for the same bits elsewhere, pass `Plan.algorithms` of another plan of this network, or "direct".
            The name of another algorithm is for the convolutions that it can compute; "direct" computes the others.
            Exact plans take the direct one, whose bits do not depend on tiles.
        mode: "grid", where each call says which blocks of one grid run, or "exact", where what changed in the frame
            runs and the outputs are the dense network's: an `ExactPlan`, which has no use for a block size.
        tolerance: of an exact plan, see `ExactPlan`: one for the frame and all layers, or by the layer's name, that of
            the frame being "frame"; layers that are not named are not compared. 0 holds back what has the same bits,
            None compares nothing but the frame.
        gates: names of convolutions, as `named_modules` has them, that calls of a plan in mode "grid" may give a gate
            (`sparseblock.plan.Gate`). Such a layer keeps its value apart from what is added to it. In mode "exact" a
            `sparseblock.plan.ResidualGate` for each such name, in a dict, or a function of a convolution's name and
            weight [k, c / groups, r, s] that gives one, or None where there is to be none.
        on_resize: what becomes of a frame of another size than the last: "error", or "reset", where it gets a plan of
            its own and the state's streams begin anew: a `ResizablePlan`, which holds a copy of the model.
        whole_from: of an exact plan, the share of tiles of 4 pixels that must have changed for a frame to run whole,
            which has the same bits (of a bounded plan, nothing is then held back). None: measured, on frames of which
            more or less changed, at the current number of threads.

    Raises:
        SparseBlockError: the model is in training mode, not float32, or cannot be captured (control flow or sizes that
            depend on values, buffers that change) and has no part that can; the example is no frame; the block size is
            not positive; a submodule of `parts` is not there, is not called, or reads no maps of the frame; the dtype
            is another; the mode is unknown, or goes with another dtype or algorithm; an algorithm for all computes no
            convolution here; a tolerance is negative, of no layer, or without mode "exact"; a gate is of no
            convolution, of one that runs dense, or not as the mode takes them; parts are given a dtype, a mode, gates
            or algorithms by name; on_resize is unknown, or "reset" for a model that cannot be copied.

    Example:
        >>> plan = sparseblock.compile(model, frame, block_size=64)
        >>> state = plan.new_state()
        >>> out = plan(frame, None, state)
    """
    residual = gates if isinstance(gates, Mapping) or callable(gates) else None
    if residual is not None and mode != "exact":
        raise SparseBlockError(
            'compile: gates is a dict or a function, which is for mode "exact"; in mode "grid" it is a list of names, '
            "and calls of the plan give the gates"
        )
    for name, names in (("parts", parts), ("gates", () if residual is not None else gates)):
        if isinstance(names, str):
            raise SparseBlockError(f"compile: {name} is {names!r}; it must be a list of names: {name}=[{names!r}]")
        if not isinstance(names, Iterable) and (name, names) != ("parts", None):
            raise SparseBlockError(f"compile: {name} is {names!r}; it must be a list of names")
    gates = list(gates) if residual is None else gates  # gone through more than once
    parts = None if parts is None else list(parts)
    if parts == []:
        raise SparseBlockError("compile: parts is empty; name a submodule, or leave it out to have the parts found")
    if on_resize not in ("error", "reset"):
        raise SparseBlockError(f'compile: on_resize is {on_resize!r}; it must be "error" or "reset"')
    if on_resize == "reset":
        options = {"parts": parts, "dtype": dtype, "algorithms": algorithms, "mode": mode, "tolerance": tolerance}
        options |= {"whole_from": whole_from}
        own = _copied(model)
        return ResizablePlan(lambda frame: compile(own, frame, block_size, gates=gates, **options), example_frame)
    if dtype not in native.DTYPES:
        raise SparseBlockError(f"compile: dtype is {dtype!r}; it must be one of {', '.join(map(str, native.DTYPES))}")
    if mode not in ("grid", "exact") or (mode == "grid" and tolerance is not None):
        raise SparseBlockError(
            f"compile: mode is {mode!r} and tolerance {tolerance!r}; mode must be "
            '"grid", which has no tolerance, or "exact"'
        )
    if checked_share(whole_from) is not None and mode != "exact":
        raise SparseBlockError(f'compile: whole_from is {whole_from!r} with mode {mode!r}; it is for mode "exact"')
    if mode == "exact" and (dtype != torch.float32 or algorithms not in (None, "direct")):
        raise SparseBlockError(
            f"compile: mode is 'exact' with dtype {dtype} and algorithms {algorithms!r}; an exact plan is float32 and "
            "computes convolutions directly: leave both out"
        )
    if mode == "exact" and residual is None and gates:
        raise SparseBlockError(
            f'compile: gates is {gates!r}; in mode "exact" it is a dict, a ResidualGate for each name: '
            f"gates={{{gates[0]!r}: sparseblock.plan.ResidualGate(threshold=1.0)}}"
        )
    if residual is not None and whole_from is not None:
        raise SparseBlockError(
            f"compile: whole_from is {whole_from!r} with gates; such a plan runs no frame whole but a stream's first"
        )
    whole = mode == "exact" or dtype != torch.float32 or isinstance(algorithms, Mapping) or bool(gates)
    if (parts is not None or is_image_list(example_frame)) and whole:
        raise SparseBlockError(
            f"compile: mode is {mode!r}, dtype {dtype}, gates {gates!r} and algorithms {algorithms!r} for a model in "
            "parts, with Python between them; parts are torch.float32, of the grid, without gates, and take None or "
            "one algorithm for all"
        )
    backend, device = _target(model, example_frame)
    if backend != "cpu":
        return _compile_for(backend, device, model, example_frame, block_size, parts, dtype, algorithms, mode, gates)
    if parts is not None or is_image_list(example_frame):
        return _in_parts(model, example_frame, block_size, parts, "", algorithms)
    try:
        graph, signature = trace(model, example_frame)
    except Uncapturable as error:
        if whole:
            raise SparseBlockError(
                f'{error}; its parts are found in mode "grid", in torch.float32, without gates or algorithms by name'
            ) from error
        return _in_parts(model, example_frame, block_size, None, str(error), algorithms)
    if mode == "exact":
        if len(graph.inputs) != 1:
            raise SparseBlockError(
                f"compile: mode is 'exact' for a module that reads {len(graph.inputs)} maps; an exact plan compares "
                "one frame with the last: compile the whole network"
            )
        found = {} if residual is None else find_gates(graph, residual)
        with torch.no_grad():
            return ExactPlan(run_passes(mark_gated(graph, found), None), signature, tolerance, whole_from, found)
    grid = BlockGrid(*frame_size(graph), block_size)
    check_names(graph, gates)
    with torch.no_grad():
        # The same name: folded weights are not to be kept beside those they come from.
        graph = run_passes(mark_gated(graph, gates), grid)
        plan = Plan(graph, signature, grid, dtype, algorithms)
    _check_taken(algorithms, [plan.report()])
    return plan


def _in_parts(
    model: nn.Module, example: Any, block_size: int, parts: Sequence[str] | None, left: str, algorithms: str | None
) -> NestedPlan:
    plan = compile_parts(model, example, block_size, parts, left, algorithms)
    _check_taken(algorithms, plan.report().parts.values())
    return plan


def _check_taken(pinned: str | Mapping[str, str] | None, reports: Iterable[Report]) -> None:
    """Refuses an algorithm for all convolutions that can compute none of them."""
    choices = [node.choice for report in reports for node in report.nodes if node.choice is not None]
    if isinstance(pinned, str) and choices and all(choice.algorithm != pinned for choice in choices):
        reason = choices[0].candidates[0].reason
        raise SparseBlockError(
            f"compile: algorithms is {pinned!r}, which computes no convolution here: {reason}; "
            "use 'direct', or None to measure"
        )


def _copied(model: nn.Module) -> nn.Module:
    """A copy, since plans that are made later take the weights of now."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the model's own attributes raise
        raise SparseBlockError(
            f'compile: on_resize is "reset", but {type(model).__name__} cannot be copied ({type(error).__name__}: '
            f'{error}); compile a plan for each frame size with on_resize="error"'
        ) from error


def _target(model: nn.Module, example: Any) -> tuple[str, torch.device]:
    """The backend that is to run the plan and where it computes: where the example is, and the model too."""
    devices = {x.device for x in pytree.tree_leaves(example) if isinstance(x, torch.Tensor)}
    devices |= {x.device for x in [*model.parameters(), *model.buffers()]} if isinstance(model, nn.Module) else set()
    if len(devices) > 1:
        raise SparseBlockError(
            f"compile: model and example are on {', '.join(sorted(map(str, devices)))}; both must be on one device"
        )
    device = devices.pop() if devices else torch.device("cpu")
    return selected(device), device


def _compile_for(
    backend: str,
    device: torch.device,
    model: nn.Module,
    example: Any,
    block_size: int,
    parts: Sequence[str] | None,
    dtype: torch.dtype,
    algorithms: Any,
    mode: str,
    gates: Sequence[str],
) -> DevicePlan:
    allowed = (None, "direct", "tf32") if backend == "cuda" and dtype == torch.float32 else (None, "direct")
    if mode != "grid" or parts is not None or is_image_list(example) or algorithms not in allowed:
        raise SparseBlockError(
            f"compile: mode is {mode!r}, parts {parts!r} and algorithms {algorithms!r} for the {backend} backend; it "
            'runs whole models, in mode "grid", by direct convolutions (the cuda backend in float32 also "tf32"); '
            "compile others for the cpu"
        )
    example = pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, example)
    graph, signature = trace(on_host(model), example)
    grid = BlockGrid(*frame_size(graph), block_size)
    check_names(graph, gates)
    with torch.no_grad():
        marked = run_passes(mark_gated(graph, gates), grid)
        return DevicePlan(marked, signature, grid, dtype, backend, device, algorithms or "direct")
