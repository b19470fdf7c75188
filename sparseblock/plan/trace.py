"""From a module and an example of its arguments to the planner's graph, and from that to a plan."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparseblock.plan.capture import Signature, capture, one_at_a_time
from sparseblock.plan.ir import Graph
from sparseblock.plan.lower import lower
from sparseblock.plan.padding import fold_padding
from sparseblock.plan.regions import inline_regions
from sparseblock.plan.strides import track_strides


def trace(model: nn.Module, example_frame: Any) -> tuple[Graph, Signature]:
    """The graph of `model` before any pass, and how it is called; raises as `compile`."""
    return trace_call(model, (example_frame,), {})


def on_host(model: Any) -> Any:
    """`model`, or a copy of it in the host's memory, where every operator of torch can be captured and folded."""
    if not isinstance(model, nn.Module) or all(x.is_cpu for x in [*model.parameters(), *model.buffers()]):
        return model
    return copy.deepcopy(model).cpu()


@one_at_a_time
def trace_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Graph, Signature]:
    """`trace` of `model(*args, **kwargs)`."""
    module, signature = capture(model, args, kwargs)
    with torch.no_grad():
        return fold_padding(track_strides(lower(inline_regions(module)))), signature
