"""The parts of a model: how they are called, learnt by running the model once, without a change to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from sparseblock.errors import SparseBlockError

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a part while the model ran once.

    Attributes:
        part: path of the module.
        args, kwargs: the arguments, with tensors on "meta": their shapes and dtypes count.
    """

    part: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def maps(self) -> list[torch.Tensor]:
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]

    def example(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Arguments that look like these, of one image."""

        def zeros(leaf: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, *leaf.shape[1:], dtype=leaf.dtype)

        return pytree.tree_map_only(torch.Tensor, zeros, (self.args, self.kwargs))


def stand_in(model: nn.Module, replaced: Mapping[nn.Module, Callable[[Callable], Callable]]) -> nn.Module:
    """A tree of modules like `model`, in which the modules `replaced` run another forward.

    Every module is a shallow copy: parameters, buffers, hooks and attributes are the model's own, and the model stays
    as it is. `replaced` gives for a module what makes the new forward of its old one.
    """
    copies: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in copies:
            twin = copies[id(module)] = copy.copy(module)
            children = {name: child and copied(child) for name, child in module._modules.items()}
            twin.__dict__["_modules"] = type(module._modules)(children)
            if module in replaced:
                twin.forward = replaced[module](twin.forward)
        return copies[id(module)]

    return copied(model)


@torch.no_grad()
def record(model: nn.Module, frame: Any) -> tuple[list[Call], int]:
    """The calls of every submodule that holds a convolution, in order, and the MACs of the whole run."""
    calls: list[Call] = []

    def recorder(path: str) -> Callable[[Callable], Callable]:
        def wrap(forward: Callable) -> Callable:
            def recorded(*args: Any, **kwargs: Any) -> Any:
                if in_transform():
                    return forward(*args, **kwargs)
                shapes = pytree.tree_map_only(torch.Tensor, lambda x: x.to("meta"), (args, kwargs))
                calls.append(Call(path, *shapes))
                return forward(*args, **kwargs)

            return recorded

        return wrap

    wrapped = {module: recorder(path) for path, module in model.named_modules() if path and holds_convolution(module)}
    with FlopCounterMode(display=False) as counter:
        stand_in(model, wrapped)(frame)
    return calls, counter.get_total_flops() // 2


@torch.no_grad()
def first_map(model: nn.Module, part: str, frame: Any) -> torch.Tensor:
    """The largest map that `part` gets in its first call; the model runs no further.

    Raises:
        SparseBlockError: it is called by a transform only.
    """

    class Reached(BaseException):
        """Not for `except Exception` in the model."""

    def stop(forward: Callable) -> Callable:
        def reached(*args: Any, **kwargs: Any) -> Any:
            if in_transform():
                return forward(*args, **kwargs)
            raise Reached(args, kwargs)

        return reached

    try:
        stand_in(model, {model.get_submodule(part): stop})(frame)
    except Reached as call:
        return largest(pytree.tree_leaves(call.args))
    raise SparseBlockError(
        f"compile: part {part!r} is called by a transform of torch (cond, vmap), where its input is no map in memory; "
        "name other parts="
    )


def largest(leaves: list[Any]) -> torch.Tensor:
    """The map with the most pixels."""
    return max(
        (leaf for leaf in leaves if isinstance(leaf, torch.Tensor)), key=lambda leaf: leaf.shape[-2] * leaf.shape[-1]
    )


def in_transform() -> bool:
    """Whether a transform of torch (vmap, cond, a gradient) runs what calls this: its tensors are no maps in memory."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def holds_convolution(module: nn.Module) -> bool:
    return any(isinstance(inner, CONVOLUTIONS) for inner in module.modules())
