"""Gradients on every backend of kernels: on packed active blocks where pixels do not mix, by kernels where they do.

The backward pass of op X is X.py:

    X_backward(call, grad, packed, needs) -> {name of an argument in `needs`: its gradient}

`grad` is the gradient before the activation, a plane [n, k, oh, ow] that is zero in inactive blocks; `packed` its
active blocks, [capacity of the list, k, block height, block width], zero past the count; `call` has, by name, the op's
arguments that are no tensors, its list of blocks, what `record` kept, and the `shapes` of all tensors; `needs` has at
least one argument that is the op's own.

A backend has, besides its ops, `conv2d_weight_grad`, `pool2d_input_grad` and `interpolate_input_grad`. All is
deterministic, and nothing waits for a device: packed blocks are as many as the list has room for, whatever its count.
"""

from __future__ import annotations

import functools
import importlib
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from sparseblock import backends

# What the backward pass of each op reads besides the gradient.
KEPT = {
    "activation": (),
    "adaptive_avg_pool2d": (),
    "adaptive_max_pool2d": ("x",),
    "add": (),
    "affine": ("x", "scale"),
    "avg_pool2d": (),
    "block_moments": ("x",),
    "block_norm": ("x", "y"),
    "cat": (),
    "channel_shuffle": (),
    "conv2d": ("x", "weight"),
    "conv_transpose2d": ("x", "weight"),
    "gather": (),
    "global_avg_pool2d": (),
    "group_norm": ("x", "moments", "weight"),
    "interpolate": (),
    "layer_norm": ("x", "weight"),
    "max_pool2d": ("x",),
    "mul": ("x", "y"),
    "normalize": ("x",),
    "pad": (),
    "pixel_shuffle": (),
    "pixel_unshuffle": (),
    "scatter": (),
    "softmax": ("x",),
}
_MUL = ("x", "y", "index", "count", "block", "out", "activation", "slope", "bounds")


def record(name: str, arguments: dict[str, object]) -> dict[str, torch.Tensor]:
    """Runs the op; returns what `backward` reads: inputs, and as "activated", packed, what an activation's slope is of.

    That is a ReLU's output, and another activation's input, which then takes a call of its own. So does the product
    with a residual, whose other factor is kept as "factor", packed.

    Halves are rounded once, so there the op is not taken apart: float32 copies of its inputs are, for these values.
    """
    out, activation = arguments["out"], arguments.get("activation")
    run, factors = getattr(torch.ops.sparseblock, name), ()
    place = (arguments["index"], arguments["count"], arguments["block"])
    fused = {key: arguments.get(key) for key in ("activation", "slope", "bounds")}
    if arguments.get("combine") == "mul" and arguments["residual"] is not None:
        factors = ("residual",)
    # An input that is `out` itself is kept as it was.
    kept = {
        key: arguments[key].clone() if arguments[key] is out else arguments[key]
        for key in (*KEPT[name], *factors)
        if arguments[key] is not None
    }
    apart = factors or (activation not in (None, "relu") and name != "activation")
    if apart and out.element_size() == 2:
        wide = {key: _widened(value) for key, value in arguments.items()}
        wide |= {"algorithm": "direct"} if "algorithm" in wide else {}
        kept = record(name, wide) | kept
        run(*arguments.values())
        return kept
    if factors:
        product = torch.empty_like(out)
        run(*{**arguments, "out": product, "residual": None, **dict.fromkeys(fused)}.values())
        kept["factor"] = _packed(product, *place)
        run = torch.ops.sparseblock.mul
        arguments = dict(zip(_MUL, (product, arguments["residual"], *place, out, *fused.values()), strict=True))
    if activation is not None and name == "activation":
        kept["activated"] = _packed(arguments["x"], *place)
        run(*arguments.values())
    elif activation not in (None, "relu"):
        before = torch.empty_like(out)
        run(*{**arguments, "out": before, **dict.fromkeys(fused)}.values())
        torch.ops.sparseblock.activation(before, *place, out, *fused.values())
        kept["activated"] = _packed(before, *place)
    else:
        run(*arguments.values())
        if activation is not None:
            kept["activated"] = _packed(out, *place)
    if fused["slope"] is not None:
        kept["slope"] = fused["slope"]
    return kept


def backward(name: str, call, grad: torch.Tensor, needs: set[str]) -> dict[str, torch.Tensor]:
    """The gradients of the tensors in `needs`, by name, all in float32."""
    call, grad = SimpleNamespace(**{key: _widened(value) for key, value in vars(call).items()}), _widened(grad)
    grad = grad.contiguous(memory_format=torch.channels_last)
    if name == "gather":  # its `out` is packed, its blocks are over x
        return _backward_of(name)(call, grad, grad, needs)
    packed, grads = pack(call, grad), {}
    if "out" in needs:
        grads["out"] = unpack(call, torch.zeros_like(packed), grad.clone())
    if hasattr(call, "activated"):
        of_activation = _through_activation(call, packed, needs)
        packed = of_activation.pop("value")
        grads |= of_activation
    if hasattr(call, "factor"):
        if "residual" in needs:
            grads["residual"] = unpack(call, packed * call.factor, torch.zeros_like(grad))
        packed = packed * pack_second(call, call.residual)
    plane = unpack(call, packed, torch.zeros_like(grad))
    if "residual" in needs:
        grads.setdefault("residual", plane)
    if "bias" in needs:
        grads["bias"] = packed.sum((0, 2, 3))
    rest = needs - grads.keys()
    return grads | _backward_of(name)(call, plane, packed, rest) if rest else grads


def _widened(value: object) -> object:
    """Halves as float32, maps channels-last whatever they were expanded from: torch chooses another order for copies
    of what has strides of 0.
    """
    halves = isinstance(value, torch.Tensor) and value.is_floating_point() and value.element_size() == 2
    if not halves:
        return value
    return value.to(torch.float32, memory_format=torch.channels_last) if value.dim() == 4 else value.float()


def _through_activation(call, packed: torch.Tensor, needs: set[str]) -> dict[str, torch.Tensor]:
    """The gradients of the "value" before the activation and, where it is needed, of the "slope"; of active blocks."""
    if call.activation == "relu":
        return {"value": packed * (call.activated > 0)}
    return differentiate(
        lambda value, slope: _activate(value, call.activation, slope, call.bounds),
        {"value": call.activated, "slope": call.slope},
        packed,
        {"value"} | needs & {"slope"},
    )


def differentiate(
    function, inputs: dict[str, torch.Tensor | None], grad: torch.Tensor, needs: set[str]
) -> dict[str, torch.Tensor]:
    """The gradients of those of `inputs` that `needs` has, where that of function(**inputs) is `grad`, by torch's
    autograd.
    """
    with torch.enable_grad():
        leaves = {key: inputs[key].detach().requires_grad_() for key in inputs if key in needs}
        grads = torch.autograd.grad(function(**{**inputs, **leaves}), list(leaves.values()), grad)
    return dict(zip(leaves, grads, strict=True))


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
    """`pack` as an op, which can be traced."""
    out = zeros((len(index), x.shape[1], *block), x)
    torch.ops.sparseblock.gather(x, index, count, block, out, 0)
    return out


def pack(call, x: torch.Tensor, block: list[int] | None = None) -> torch.Tensor:
    """The active blocks of x [n, c, h, w]: [capacity, c, block height, block width]; zeros outside of the frame and
    past the count.
    """
    block = block or call.block
    out = zeros((len(call.index), x.shape[1], *block), x)
    compute("gather", x, call.index, call.count, block, out, 0)
    return out


def unpack(call, packed: torch.Tensor, out: torch.Tensor, block: list[int] | None = None) -> torch.Tensor:
    """Writes packed blocks to their places in `out`, which it returns."""
    packed = packed.contiguous(memory_format=torch.channels_last)
    compute("scatter", packed, call.index, call.count, block or call.block, out)
    return out


def pack_second(call, x: torch.Tensor) -> torch.Tensor:
    """`pack` of a second input; what counts for all pixels or channels is one pixel or channel of a block."""
    return of_images(call, x) if x.shape[2:] == (1, 1) else pack(call, x)


def of_images(call, x: torch.Tensor) -> torch.Tensor:
    """What x [n, c, 1, 1] has for the image of every row of the list, [capacity, c, 1, 1]; zero past the count, where
    rows are anything and an image without active blocks could have NaN.
    """
    active = listed(call)
    return torch.where(active[:, None, None, None], x[torch.where(active, call.index[:, 0], 0).long()], 0)


def listed(call) -> torch.Tensor:
    """Which rows of the list are active, bool [capacity]."""
    return torch.arange(len(call.index), device=call.index.device) < call.count


def pack_cells(call, x: torch.Tensor) -> torch.Tensor:
    """The pixels of the cells in active blocks: [capacity, c, block height, block width, cell height, cell width]."""
    packed = pack(call, x, _in_pixels(call))
    return packed.unflatten(3, (-1, call.cell[1])).unflatten(2, (-1, call.cell[0])).transpose(3, 4)


def unpack_cells(call, packed: torch.Tensor, size: list[int]) -> torch.Tensor:
    """A map of `size` with these pixels in its cells, and zeros elsewhere."""
    pixels = packed.expand(*packed.shape[:4], *call.cell).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return unpack(call, pixels, zeros(size, packed), _in_pixels(call))


def zeros(size: list[int], like: torch.Tensor) -> torch.Tensor:
    """A map of `size`, channels-last, of zeros, stored as another and where it is."""
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last).zero_()


def compute(op: str, x: torch.Tensor, *arguments: object) -> object:
    """An op or a kernel of gradients on the backend in force."""
    return backends.implementation(backends.selected(x.device), op)(x, *arguments)


def _in_pixels(call) -> list[int]:
    return [side * pixels for side, pixels in zip(call.block, call.cell, strict=True)]


@functools.cache
def _backward_of(name: str):
    return getattr(importlib.import_module(f"sparseblock.backends.gradients.{name}"), f"{name}_backward")
