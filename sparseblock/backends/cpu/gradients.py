"""Gradients of the cpu backend: on packed active blocks where pixels do not mix, by kernels where they do.

The backward pass of op X is `backends/cpu/X_backward.py`:

    X_backward(call, grad, packed, needs) -> {name of an argument: its gradient}

`grad` is the gradient before the activation, a plane [n, k, oh, ow] that is zero in inactive blocks; `packed` its
active blocks, [count, k, block height, block width]; `call` has, by name, the op's arguments that are no tensors, its
list of blocks, what `record` kept, and the `shapes` of all tensors.
"""

from __future__ import annotations

import functools
import importlib

import torch
import torch.nn.functional as F

from sparseblock.backends.cpu import gather as native_gather
from sparseblock.backends.cpu import scatter as native_scatter
from sparseblock.errors import SparseBlockError

# What the backward pass of each op reads besides the gradient.
_KEPT = {
    "activation": (),
    "add": (),
    "affine": ("x", "scale"),
    "avg_pool2d": (),
    "cat": (),
    "conv2d": ("x", "weight"),
    "conv_transpose2d": ("x", "weight"),
    "gather": (),
    "interpolate": (),
    "max_pool2d": ("x",),
    "scatter": (),
}
OPS = frozenset(_KEPT)
DTYPES = (torch.float32,)


def record(name: str, arguments: dict[str, object]) -> dict[str, torch.Tensor]:
    """Runs the op; returns what `backward` reads: inputs, and as "value", packed, what tells the activation's slope.

    That is a ReLU's output, and another activation's input, which then takes a call of its own.

    Raises:
        SparseBlockError: the op has no gradient with these arguments.
    """
    for key, known in (("combine", "add"), ("padding_mode", "zeros")):
        if arguments.get(key, known) != known:
            raise SparseBlockError(
                f"{name}: the cpu backend has no gradient with {key} {arguments[key]!r}, only with {known!r}; "
                "call it under torch.no_grad(), or take apart what it does"
            )
    out, activation = arguments["out"], arguments.get("activation")
    # An input that is `out` itself is kept as it was.
    kept = {key: arguments[key].clone() if arguments[key] is out else arguments[key] for key in _KEPT[name]}
    place = (arguments["index"], arguments["count"], arguments["block"])
    fused = {key: arguments.get(key) for key in ("activation", "slope", "bounds")}
    run = getattr(torch.ops.sparseblock, name)
    if activation is not None and name == "activation":
        kept["value"] = _packed(arguments["x"], *place)
        run(*arguments.values())
    elif activation not in (None, "relu"):
        before = torch.empty_like(out)
        run(*{**arguments, "out": before, **dict.fromkeys(fused)}.values())
        torch.ops.sparseblock.activation(before, *place, out, *fused.values())
        kept["value"] = _packed(before, *place)
    else:
        run(*arguments.values())
        if activation is not None:
            kept["value"] = _packed(out, *place)
    if fused["slope"] is not None:
        kept["slope"] = fused["slope"]
    return kept


def backward(name: str, call, grad: torch.Tensor, needs: set[str]) -> dict[str, torch.Tensor]:
    """The gradients of the tensors in `needs`, by name."""
    place = (call.index, call.count, call.block)
    grad = grad.contiguous(memory_format=torch.channels_last)
    if name == "gather":  # its `out` is packed, its blocks are over x
        return _backward_of(name)(call, grad, grad, needs)
    packed, grads = pack(grad, *place), {}
    if "out" in needs:
        grads["out"] = unpack(torch.zeros_like(packed), *place, grad.clone())
    if hasattr(call, "value"):
        packed, grads["slope"] = _through_activation(call, packed)
    plane = unpack(packed, *place, torch.zeros_like(grad))
    if "residual" in needs:
        grads["residual"] = plane
    if "bias" in needs:
        grads["bias"] = packed.sum((0, 2, 3))
    return grads | _backward_of(name)(call, plane, packed, needs)


def _through_activation(call, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gradients before the activation and of its slope, if it has one; both of active blocks."""
    value = call.value[: len(packed)]
    if call.activation == "relu":
        return packed * (value > 0), None
    slope = None if call.slope is None else call.slope.detach().requires_grad_()
    with torch.enable_grad():
        value = value.detach().requires_grad_()
        result = _activate(value, call.activation, slope, call.bounds)
        grads = torch.autograd.grad(result, [value] if slope is None else [value, slope], packed)
    return grads[0], None if slope is None else grads[1]


def _activate(value, activation, slope, bounds) -> torch.Tensor:
    """The activation as torch's autograd knows it."""
    match activation:
        case "prelu":
            return torch.where(value > 0, value, slope[:, None, None] * value)
        case "elu":
            return torch.where(value > 0, value, slope[:, None, None] * torch.expm1(value.clamp(max=0)))
        case "clamp":
            return value.clamp(*bounds)
        case "gelu_tanh":
            return F.gelu(value, approximate="tanh")
    return getattr(F, activation)(value)


def _packed(x: torch.Tensor, index: torch.Tensor, count: torch.Tensor, block: list[int]) -> torch.Tensor:
    """`pack` as an op, which can be traced: its size does not depend on the count."""
    out = torch.empty((len(index), x.shape[1], *block), memory_format=torch.channels_last)
    torch.ops.sparseblock.gather(x, index, count, block, out, 0)
    return out


def pack(x: torch.Tensor, index: torch.Tensor, count: torch.Tensor, block: list[int]) -> torch.Tensor:
    """The active blocks of x [n, c, h, w]: [count, c, block height, block width]; zeros outside of the frame."""
    out = torch.empty((int(count), x.shape[1], *block), memory_format=torch.channels_last)
    native_gather.gather(x, index, count, block, out, 0)
    return out


def unpack(packed: torch.Tensor, index: torch.Tensor, count: torch.Tensor, block: list[int], out: torch.Tensor):
    """Writes packed blocks to their places in `out`, which it returns."""
    packed = packed.contiguous(memory_format=torch.channels_last)
    native_scatter.scatter(packed, index, count, block, out)
    return out


@functools.cache
def _backward_of(name: str):
    return getattr(importlib.import_module(f"sparseblock.backends.cpu.{name}_backward"), f"{name}_backward")
