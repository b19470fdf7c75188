"""`sparseblock.compile`: from a module to a plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sparseblock.backends.cpu import native
from sparseblock.errors import SparseBlockError
from sparseblock.grid import BlockGrid
from sparseblock.plan.capture import capture
from sparseblock.plan.ir import Graph
from sparseblock.plan.lower import lower
from sparseblock.plan.passes import run_passes
from sparseblock.plan.plan import Plan
from sparseblock.plan.strides import track_strides


def compile(
    model: nn.Module,
    example_frame: torch.Tensor,
    block_size: int = 128,
    dtype: torch.dtype = torch.float32,
    algorithms: str | Mapping[str, str] | None = None,
) -> Plan:
    """A plan that runs `model` on frames of one size, block by block.

    The model is captured as it is and not changed; later changes to its weights do not reach the plan. Every operator
    that has a block-sparse rule runs on the active blocks; any other runs dense on whole planes, and `Plan.report()`
    says so and why.

    Args:
        model: any module in eval mode, float32 on the cpu, that takes one frame [n, c, h, w].
        example_frame: float32 [n, c, h, w]; only its c, h and w count: streams belong to the state.
        block_size: pixels of the frame along both sides of a block. Maps whose stride does not divide it run dense.
        dtype: what feature maps are stored in: torch.float32, torch.bfloat16 or torch.float16. Weights and sums are
            float32 in any case, and so is the frame; every map is rounded once, when it is stored. Operators without a
            rule get float32 and their results are rounded. The outputs have this dtype.
        algorithms: how convolutions are computed. None: every candidate is timed once per shape of convolution, at the
            current number of threads, and the fastest is taken; the process remembers it. Algorithms differ in their
            rounding: for the same bits elsewhere, pass `Plan.algorithms` of another plan of this network, or "direct".

    Raises:
        SparseBlockError: the model is in training mode, not float32, or cannot be captured (control flow or sizes that
            depend on values, buffers that change); the example is no frame; the block size is not positive; the dtype
            is another.

    Example:
        >>> plan = sparseblock.compile(model, frame, block_size=64)
        >>> state = plan.new_state()
        >>> out = plan(frame, None, state)
    """
    if dtype not in native.DTYPES:
        raise SparseBlockError(f"compile: dtype is {dtype!r}; it must be one of {', '.join(map(str, native.DTYPES))}")
    graph, out_spec = trace(model, example_frame)
    grid = BlockGrid(*example_frame.shape[2:], block_size)
    with torch.no_grad():
        graph = run_passes(graph, grid)  # the same name: folded weights are not to be kept beside those they come from
        return Plan(graph, out_spec, grid, dtype, algorithms)


def trace(model: nn.Module, example_frame: torch.Tensor) -> tuple[Graph, pytree.TreeSpec]:
    """The graph of `model` before any pass, and the structure of what it returns; raises as `compile`."""
    module, out_spec = capture(model, example_frame)
    with torch.no_grad():
        return track_strides(lower(module)), out_spec
