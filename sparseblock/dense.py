"""Small dense functions that run beside a network on every frame, differentiable, in a few native calls.

A policy that decides which blocks to run has maps of a few thousand pixels: there, what an operator of torch costs to
call is many times what it costs to compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparseblock import backends
from sparseblock.errors import SparseBlockError
from sparseblock.grid import conv_extent


def area_mean(x: torch.Tensor, window: int, rows: int, cols: int) -> tuple[torch.Tensor, bool]:
    """Averages of x over windows of `window` x `window` pixels, and whether all of them are finite.

    Every pixel of x enters exactly one average, so a NaN or an infinity anywhere in x shows. The last windows are
    clipped to x; past them the nearest average is repeated.

    Args:
        x: float32 (float64 too on the reference backend) [n, c, h, w], any strides. Not differentiable.
        window: pixels.
        rows, cols: of the result, at least h / window and w / window.

    Returns:
        ([n, c, rows, cols], contiguous; whether it is finite).

    Raises:
        SparseBlockError: x is no map of a dtype that the backend computes in, or the result is too small.

    Example:
        >>> means, finite = sparseblock.dense.area_mean(torch.rand(1, 3, 36, 64), 8, rows=5, cols=8)
        >>> means.shape, finite
        (torch.Size([1, 3, 5, 8]), True)
    """
    backend = backends.selected(x.device)
    _check_dtype("area_mean", backend, x, x)
    if x.dim() != 4 or not x.numel() or window < 1 or rows * window < x.shape[2] or cols * window < x.shape[3]:
        raise SparseBlockError(
            f"area_mean: x is {list(x.shape)}, the window {window} and the result {rows}x{cols}; "
            "x must be [n, c, h, w], not empty, and rows * window and cols * window must cover it"
        )
    out = torch.empty((*x.shape[:2], rows, cols), dtype=x.dtype, device=x.device)
    return out, backends.implementation(backend, "area_mean")(x.detach(), window, out)


def stack(maps: Sequence[torch.Tensor], rows: int, cols: int) -> torch.Tensor:
    """torch.cat of maps of several resolutions, each enlarged to rows x cols by nearest neighbour.

    Args:
        maps: float32 (float64 too on the reference backend), each [n, c_i, y_i, x_i] of any strides, where y_i divides
            rows and x_i divides cols. Not differentiable.
        rows, cols: of the result.

    Returns:
        [n, sum of c_i, rows, cols], channels-last.

    Raises:
        SparseBlockError: there are no maps, they do not divide the result, differ in n, or are of another dtype.

    Example:
        >>> sparseblock.dense.stack([torch.rand(1, 3, 8, 12), torch.rand(1, 2, 4, 3)], 8, 12).shape
        torch.Size([1, 5, 8, 12])
    """
    if not maps:
        raise SparseBlockError("stack: there are no maps; give at least one")
    first = maps[0]
    backend = backends.selected(first.device)
    for x in maps:
        _check_dtype("stack", backend, first, x)
        if x.dim() != 4 or not x.numel() or len(x) != len(first) or rows % x.shape[2] or cols % x.shape[3]:
            raise SparseBlockError(
                f"stack: a map is {list(x.shape)} and the result {rows}x{cols}; "
                f"every map must be [{len(first)}, c, y, x], not empty, where y and x divide the result"
            )
    size = (len(first), sum(x.shape[1] for x in maps), rows, cols)
    out = torch.empty(size, dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
    backends.implementation(backend, "stack")([x.detach() for x in maps], out)
    return out


def conv_relu_chain(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    *,
    stride: int = 1,
    padding: int = 0,
) -> torch.Tensor:
    """relu(conv2d(... relu(conv2d(x, weights[0], biases[0])) ..., weights[-1], biases[-1])), of one stride and padding.

    Differentiable, once, with respect to x, weights and biases.

    Args:
        x: [n, c, h, w], channels-last.
        weights: each [k, c, r, s], c being the k of the one before.
        biases: each [k].
        stride, padding: pixels.

    Returns:
        [n, k, oh, ow] of the last convolution, channels-last.

    Raises:
        SparseBlockError: shapes or dtypes (float32; float64 too on the reference backend) do not fit, x is not
            channels-last, or a kernel is larger than its padded input.

    Example:
        >>> x = torch.randn(1, 3, 30, 40).contiguous(memory_format=torch.channels_last)
        >>> weights, biases = [torch.randn(8, 3, 4, 4), torch.randn(16, 8, 4, 4)], [torch.zeros(8), torch.zeros(16)]
        >>> sparseblock.dense.conv_relu_chain(x, weights, biases, stride=2, padding=1).shape
        torch.Size([1, 16, 7, 10])
    """
    backend = backends.selected(x.device)
    _check(backend, x, weights, biases, stride, padding)
    parameters = [*weights, *biases]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters)):
        return _ConvReluChain.apply(backend, stride, padding, x, *parameters)
    return backends.implementation(backend, "conv_relu_chain")(x, weights, biases, stride, padding)[-1]


class _ConvReluChain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, backend, stride, padding, x, *parameters):
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        maps = backends.implementation(backend, "conv_relu_chain")(x, weights, biases, stride, padding)
        ctx.save_for_backward(x, *weights, *maps)
        ctx.backend, ctx.stride, ctx.padding = backend, stride, padding
        return maps[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, *saved = ctx.saved_tensors
        weights, maps = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        grad_x, grad_weights, grad_biases = backends.implementation(ctx.backend, "conv_relu_chain_backward")(
            grad, x, weights, maps, ctx.stride, ctx.padding, ctx.needs_input_grad[3]
        )
        return None, None, None, grad_x, *grad_weights, *grad_biases


def _check(backend, x, weights, biases, stride, padding) -> None:
    op = "conv_relu_chain"
    if x.dim() != 4 or (x.shape[1] > 1 and x.stride(1) != 1):
        raise SparseBlockError(
            f"{op}: x is {list(x.shape)} with strides {list(x.stride())}; it must be [n, c, h, w] and channels-last: "
            "x.contiguous(memory_format=torch.channels_last)"
        )
    if not weights or len(weights) != len(biases):
        raise SparseBlockError(
            f"{op}: {len(weights)} weights and {len(biases)} biases; there must be one of each a layer"
        )
    channels, sides = x.shape[1], x.shape[2:]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.dim() != 4 or weight.shape[1] != channels or bias.shape != weight.shape[:1]:
            raise SparseBlockError(
                f"{op}: layer {layer} has weight {list(weight.shape)} and bias {list(bias.shape)}; they must be "
                f"[k, {channels}, r, s] and [k]"
            )
        channels = weight.shape[0]
        sides = [
            conv_extent(side, kernel, stride, padding, 1) for side, kernel in zip(sides, weight.shape[2:], strict=True)
        ]
        if min(sides) < 1:
            raise SparseBlockError(
                f"{op}: layer {layer} has a kernel of {weight.shape[2]}x{weight.shape[3]}, which does not fit into its "
                f"input with padding {padding}; pad more or pass a larger x"
            )
    for tensor in (x, *weights, *biases):
        _check_dtype(op, backend, x, tensor)


def _check_dtype(op: str, backend: str, first: torch.Tensor, tensor: torch.Tensor) -> None:
    """`tensor` is of the dtype of the first, which the backend computes in."""
    known = (torch.float32, torch.float64) if backend == "reference" else (torch.float32,)
    if tensor.dtype != first.dtype or tensor.dtype not in known:
        known = " or ".join(map(str, known))
        raise SparseBlockError(
            f"{op}: tensors are {first.dtype} and {tensor.dtype}; "
            f"the {backend} backend computes in one dtype of {known}"
        )
