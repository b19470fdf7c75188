"""From an unmodified module to an ATen graph: torch.export at the size of one example frame."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from sparseblock.errors import SparseBlockError


def capture(model: nn.Module, example: torch.Tensor) -> tuple[fx.GraphModule, pytree.TreeSpec]:
    """The graph of `model` on one frame like `example` [n, c, h, w], and the structure of what it returns.

    Raises:
        SparseBlockError: what is given is no float32 module in eval mode or no frame, or the module cannot be captured.
    """
    _check(model, example)
    frame = example[:1].detach()
    try:
        with torch.no_grad():
            program = torch.export.export(model, (frame,), strict=False)
            return program.module(), program.call_spec.out_spec
    except SparseBlockError:
        raise
    except Exception as error:  # export lets through whatever the module or the tracer raises
        message = str(error).strip().split("\n")[0]
        raise SparseBlockError(
            f"compile: {type(model).__name__} cannot be captured at {list(frame.shape)} ({type(error).__name__}: "
            f"{message}); torch.export must get through it: move control flow that depends on values out of the module"
        ) from error


def _check(model: nn.Module, example: torch.Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise SparseBlockError(f"compile: model is a {type(model).__name__}; it must be a torch.nn.Module")
    if model.training:
        raise SparseBlockError(f"compile: {type(model).__name__} is in training mode; call model.eval() first")
    if not isinstance(example, torch.Tensor):
        raise SparseBlockError(
            f"compile: example_frame is a {type(example).__name__}; it must be a tensor [n, c, h, w]"
        )
    if example.dim() != 4 or min(example.shape) < 1 or example.dtype != torch.float32 or example.device.type != "cpu":
        raise SparseBlockError(
            f"compile: example_frame is {example.dtype} {list(example.shape)} on {example.device}; "
            "it must be a float32 frame [n, c, h, w] on the cpu"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise SparseBlockError(
                f"compile: {name} is on {tensor.device}; plans run on the cpu: call model.cpu() first"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise SparseBlockError(
                f"compile: {name} is {tensor.dtype}; plans compute in float32: call model.float() first"
            )
