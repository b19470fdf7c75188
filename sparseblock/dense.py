"""Small dense functions that run beside a network on every frame, each in one native call.

A policy that decides which blocks to run has maps of a few thousand pixels: there, what an operator of torch costs to
call is many times what it costs to compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sparseblock import backends
from sparseblock.errors import SparseBlockError


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


def policy_inputs(
    frame: torch.Tensor,
    executed: torch.Tensor,
    features: torch.Tensor,
    active: torch.Tensor,
    age: torch.Tensor,
    *,
    level: float | None,
    momentum: float,
    logarithms: bool,
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """What a policy network reads before it decides which of rows x cols blocks run.

    With d = mean over the channels of |frame - executed|, level' = momentum * level + (1 - momentum) * mean(d) (or
    mean(d) where there is no level yet), s(x) = log(x + 0.1) / 2 and r = d / (level' + 0.001):

        pixels  = frame, executed, s(r), p - 0.5 (or features - 0.5), active - 0.5, each enlarged to the frame's size
        summary = active - 0.5, s(block mean of r), log(1 + age) / 2 - 0.5, s(10 * block mean of the entropy of p)

    where p = exp(features) with `logarithms`, and without them the entropy is left out. The entropy is divided by the
    logarithm of the number of features. Not differentiable.

    Args:
        frame, executed: float32 (float64 too on the reference backend) [1, c, rows * s, cols * s]: a small picture, and
            what it was where each block last ran.
        features: same dtype, [1, k, rows * m, cols * m] of any strides, where m divides s: of the last output.
        active: bool [rows, cols]: the blocks that ran in the last frame.
        age: int64 [rows, cols]: frames since each ran.
        level: a running mean of d; None where there is none.
        momentum: of `level`; 1 keeps it.
        logarithms: whether features are log-probabilities over k classes, at least two.

    Returns:
        (pixels [rows * s, cols * s, 2 c + 1 + k + 1]; summary [3 or 4, rows, cols]; the new level).

    Raises:
        SparseBlockError: sizes or dtypes do not fit.

    Example:
        >>> frame, executed, features = torch.rand(2, 1, 3, 16, 24), torch.rand(1, 3, 16, 24), torch.rand(1, 5, 4, 6)
        >>> active, age = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.int64)
        >>> pixels, summary, level = sparseblock.dense.policy_inputs(
        ...     frame[0], frame[1], features, active, age, level=None, momentum=0.99, logarithms=False
        ... )
        >>> pixels.shape, summary.shape
        (torch.Size([16, 24, 13]), torch.Size([3, 2, 3]))
    """
    op, (rows, cols) = "policy_inputs", active.shape
    backend = backends.selected(frame.device)
    for x in (frame, executed, features):
        _check_dtype(op, backend, frame, x)
    sides = [] if features.dim() != 4 or frame.dim() != 4 else [features.shape[2] // rows, features.shape[3] // cols]
    side = frame.shape[-1] // cols
    fits = (
        frame.shape == executed.shape == (1, frame.shape[1], rows * side, cols * side)
        and age.shape == active.shape and (active.dtype, age.dtype) == (torch.bool, torch.int64)
        and len(sides) == 2 and min(sides) >= 1 and side % sides[0] == 0 and sides[0] == sides[1]
        and features.shape == (1, features.shape[1], rows * sides[0], cols * sides[1])
        and features.shape[1] > logarithms
    )  # fmt: skip
    if not fits:
        raise SparseBlockError(
            f"{op}: frame is {list(frame.shape)}, executed {list(executed.shape)}, features {list(features.shape)}, "
            f"active {active.dtype} {list(active.shape)} and age {age.dtype} {list(age.shape)}; frames must be "
            "[1, c, rows * s, cols * s], features [1, k, rows * m, cols * m] where m divides s (k at least 2 for "
            "logarithms), active bool and age int64 [rows, cols]"
        )
    pixels = frame.new_empty(*frame.shape[2:], 2 * frame.shape[1] + 1 + features.shape[1] + 1)
    summary = frame.new_empty(3 + logarithms, rows, cols)
    given = (x.detach() for x in (frame, executed, features))
    level = backends.implementation(backend, op)(
        *given, active, age, math.nan if level is None else level, momentum, logarithms, pixels, summary
    )
    return pixels, summary, level


POLICY_KERNEL, POLICY_LAYERS = 4, 3
"""Pixels along the side of a kernel of the policy network, and its convolutions."""


def policy_logits(
    parameters: torch.Tensor, pixels: torch.Tensor, summary: torch.Tensor, widths: Sequence[int], bound: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A policy network: one number a block, within (-bound, bound).

    x = relu(conv2d(x)) three times, with kernels of 4x4, stride 2 and padding 1, brings the 8x8 pixels of a block down
    to one of widths[-1] channels; then bound * tanh((value . x + weight . summary + bias) / bound).

    Args:
        parameters: float32 (float64 too on the reference backend), flat: of each convolution weight [k, c, 4, 4] and
            bias [k], then value [widths[-1]], weight [s] and bias [1].
        pixels: [rows * 8, cols * 8, c], contiguous.
        summary: [s, rows, cols], contiguous.
        widths: channels k of the three convolutions.

    Returns:
        (logits [rows, cols]; what `policy_logits_backward` wants to know besides).

    Raises:
        SparseBlockError: sizes or dtypes do not fit.
    """
    backend = _check_policy("policy_logits", parameters, pixels, summary, widths)
    return backends.implementation(backend, "policy_logits")(parameters.detach(), pixels, summary, widths, bound)


def policy_logits_backward(
    grad: torch.Tensor,
    parameters: torch.Tensor,
    pixels: torch.Tensor,
    summary: torch.Tensor,
    logits: torch.Tensor,
    maps: torch.Tensor,
    widths: Sequence[int],
    bound: float,
) -> torch.Tensor:
    """The gradient with respect to the parameters of `policy_logits`, flat, of one with respect to its logits.

    Args:
        grad: [rows, cols].
        logits, maps: what `policy_logits` gave for these parameters and inputs.

    Raises:
        SparseBlockError: sizes or dtypes do not fit.
    """
    backend = _check_policy("policy_logits_backward", parameters, pixels, summary, widths)
    if not grad.shape == logits.shape == summary.shape[1:] or grad.dtype != parameters.dtype:
        raise SparseBlockError(
            f"policy_logits_backward: grad is {grad.dtype} {list(grad.shape)} and logits are {list(logits.shape)}; "
            f"both must be {parameters.dtype} {list(summary.shape[1:])}"
        )
    return backends.implementation(backend, "policy_logits_backward")(
        grad, parameters.detach(), pixels, summary, logits, maps, widths, bound
    )


def _check_policy(op, parameters, pixels, summary, widths) -> str:
    """The backend that computes a policy network of these sizes."""
    backend = backends.selected(parameters.device)
    for x in (parameters, pixels, summary):
        _check_dtype(op, backend, parameters, x)
    side, size, c = 2**POLICY_LAYERS, 0, pixels.shape[-1]
    for k in widths:
        size, c = size + k * (c * POLICY_KERNEL**2 + 1), k
    size += c + len(summary) + 1
    grid = tuple(side * blocks for blocks in summary.shape[1:])
    shapes = pixels.dim() == summary.dim() == 3 and tuple(pixels.shape[:2]) == grid
    whole = all(x.is_contiguous() for x in (parameters, pixels, summary))
    if len(widths) != POLICY_LAYERS or not shapes or not whole or parameters.shape != (size,):
        raise SparseBlockError(
            f"{op}: parameters are {list(parameters.shape)}, pixels {list(pixels.shape)}, summary "
            f"{list(summary.shape)} and widths {list(widths)}; pixels must be [rows * {side}, cols * {side}, c], "
            f"summary [s, rows, cols], widths {POLICY_LAYERS} and parameters [{size}] for them, all contiguous"
        )
    return backend


def _check_dtype(op: str, backend: str, first: torch.Tensor, tensor: torch.Tensor) -> None:
    """`tensor` is of the dtype of the first, which the backend computes in."""
    known = (torch.float32, torch.float64) if backend == "reference" else (torch.float32,)
    if tensor.dtype != first.dtype or tensor.dtype not in known:
        known = " or ".join(map(str, known))
        raise SparseBlockError(
            f"{op}: tensors are {first.dtype} and {tensor.dtype}; "
            f"the {backend} backend computes in one dtype of {known}"
        )
