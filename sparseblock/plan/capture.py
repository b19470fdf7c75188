"""From an unmodified module to an ATen graph: torch.export at the size of one example frame."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import sys
from collections.abc import Iterator

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
        with torch.no_grad(), _quiet():
            program = torch.export.export(model, (frame,), strict=False)
            return program.module(), program.call_spec.out_spec
    except SparseBlockError:
        raise
    except Exception as error:  # export lets through whatever the module or the tracer raises
        own = _error_of(model, frame)
        if own is not None:
            raise SparseBlockError(
                f"compile: {type(model).__name__} itself fails on a frame of {list(frame.shape)} "
                f"({_first_line(own)}); check the model and the size and channels of example_frame"
            ) from error
        raise SparseBlockError(
            f"compile: {type(model).__name__} cannot be captured at {list(frame.shape)} "
            f"({_first_line(error)}); torch.export must get through it: "
            "move control flow that depends on values out of the module"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch from telling at length on stderr what one line will say; without an error all comes through."""
    said = io.StringIO()
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before, logger.disabled = logger.disabled, True
    try:
        with contextlib.redirect_stderr(said):
            yield
        sys.stderr.write(said.getvalue())
    finally:
        logger.disabled = before


def _error_of(model: nn.Module, frame: torch.Tensor) -> Exception | None:
    """What the model raises when it runs as it is; on a copy, since a run may change buffers."""
    try:
        model = copy.deepcopy(model)
    except Exception:  # what cannot be copied is not run
        return None
    try:
        with torch.no_grad():
            model(frame.clone())
    except Exception as error:
        return error
    return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


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
