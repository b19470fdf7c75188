"""Small dense functions that run beside a network on every frame, each in one native call.

A policy that decides which blocks to run has maps of a few thousand pixels: there, what an operator of torch costs to
call is many times what it costs to compute.

Single numbers that come out are Python's on the cpu backend. On every other they are tensors [] of the device: nothing
waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sparseblock import backends
from sparseblock.errors import SparseBlockError


def area_mean(x: torch.Tensor, window: int, rows: int, cols: int) -> tuple[torch.Tensor, bool | torch.Tensor]:
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


def channel_moments(x: torch.Tensor) -> tuple[list[float] | torch.Tensor, list[float] | torch.Tensor]:
    """Mean and variance (without Bessel's correction) of every channel.

    Args:
        x: float32 (float64 too on the reference backend) [1, c, h, w]. Not differentiable.

    Returns:
        (means [c], variances [c]): lists of numbers on the cpu backend, else tensors.

    Raises:
        SparseBlockError: x is no such map.

    Example:
        >>> sparseblock.dense.channel_moments(torch.tensor([[[[1.0, 3.0]]]]))
        ([2.0], [1.0])
    """
    backend = _check_picture("channel_moments", x, x)
    return backends.implementation(backend, "channel_moments")(x.detach())


def picture_distance(a: torch.Tensor, b: torch.Tensor, most: float) -> float | torch.Tensor:
    """The mean over the pixels of min(|a - b|^2 / e, most), where e is the mean over the pixels of |a|^2 + |b|^2.

    From both pictures each channel's mean is taken off before. 0 for the same picture or another exposure of it, about
    1 for unrelated ones; and what changes much in a few pixels only is `most` times their share.

    Args:
        a, b: float32 (float64 too on the reference backend) [1, c, h, w]. Not differentiable.
        most: what a pixel counts for at most.

    Returns:
        A number, 0 where both pictures are flat.

    Raises:
        SparseBlockError: a and b are no two such maps of one size.

    Example:
        >>> a = torch.tensor([[[[0.0, 0.0, 0.0, 4.0]]]])
        >>> sparseblock.dense.picture_distance(a, a.flip(3), most=2.0)
        1.0
    """
    backend = _check_picture("picture_distance", a, b)
    return backends.implementation(backend, "picture_distance")(a.detach(), b.detach(), most)


def _check_picture(op: str, a: torch.Tensor, b: torch.Tensor) -> str:
    """The backend that computes on pictures of one size."""
    backend = backends.selected(a.device)
    _check_dtype(op, backend, a, b)
    if a.dim() != 4 or len(a) != 1 or not a.numel() or a.shape != b.shape:
        given = f"{list(a.shape)}" if a is b else f"{list(a.shape)} and {list(b.shape)}"
        raise SparseBlockError(f"{op}: given is {given}; it takes pictures [1, c, h, w] of one size, not empty")
    return backend


def sample(x: torch.Tensor, ys: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
    """The pixels of x at the rows `ys` and columns `xs`: a copy.

    Args:
        x: float32, or float16 or bfloat16 as maps may be stored (float64 too on the reference backend), [1, c, h, w] of
            any strides. Not differentiable.
        ys, xs: int64 [rows] and [cols], contiguous, on x's device, at least 0 and below h and w, which is not checked.

    Returns:
        [1, c, rows, cols], channels-last; float32 of halves.

    Raises:
        SparseBlockError: x is no such map, or ys or xs no such list.

    Example:
        >>> x = torch.arange(12.0).view(1, 1, 3, 4)
        >>> sparseblock.dense.sample(x, torch.tensor([0, 2]), torch.tensor([1, 3]))[0, 0].tolist()
        [[1.0, 3.0], [9.0, 11.0]]
    """
    backend = backends.selected(x.device)
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    if dtype == x.dtype:
        _check_dtype("sample", backend, x, x)
    kind = (1, torch.int64, x.device, True)
    lists = all((i.dim(), i.dtype, i.device, i.is_contiguous()) == kind for i in (ys, xs))
    if x.dim() != 4 or len(x) != 1 or not x.numel() or not lists:
        raise SparseBlockError(
            f"sample: x is {list(x.shape)}, ys {ys.dtype} {list(ys.shape)} and xs {xs.dtype} {list(xs.shape)}; x must "
            "be [1, c, h, w], not empty, ys and xs int64 [rows] and [cols], contiguous and where x is"
        )
    size = (1, x.shape[1], len(ys), len(xs))
    out = torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    backends.implementation(backend, "sample")(x.detach(), ys, xs, out)
    return out


def copy_where(condition: bool | torch.Tensor, into: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> None:
    """Copies each of `given` into its counterpart in `into` where the condition holds, else nothing: bit for bit.

    Args:
        condition: a flag of Python's on the cpu backend, else bool [] on the device.
        into, given: tensors in pairs of one dtype, size and layout, without gaps; none lies in another's memory.

    Raises:
        SparseBlockError: they do not come in such pairs.

    Example:
        >>> kept, seen = torch.zeros(2), torch.ones(2)
        >>> sparseblock.dense.copy_where(False, [kept], [seen])
        >>> kept.tolist()
        [0.0, 0.0]
    """
    for to, x in zip(into, given, strict=True):
        alike = (to.dtype, to.device, to.shape, to.stride()) == (x.dtype, x.device, x.shape, x.stride())
        if not alike or not _has_no_gaps(to):
            raise SparseBlockError(
                f"copy_where: {x.dtype} {list(x.shape)} with strides {x.stride()} on {x.device} cannot go into "
                f"{to.dtype} {list(to.shape)} with strides {to.stride()} on {to.device}; both must be alike and "
                "without gaps"
            )
    if into:
        backends.implementation(backends.selected(into[0].device), "copy_where")(condition, into, given)


def _has_no_gaps(x: torch.Tensor) -> bool:
    return 1 + sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True)) == x.numel()


def policy_inputs(
    frame: torch.Tensor,
    executed: torch.Tensor,
    features: torch.Tensor,
    active: torch.Tensor,
    age: torch.Tensor,
    *,
    mean: Sequence[float] | torch.Tensor,
    deviation: Sequence[float] | torch.Tensor,
    level: float | torch.Tensor,
    momentum: float,
    logarithms: bool,
) -> tuple[torch.Tensor, torch.Tensor, float | torch.Tensor]:
    """What a policy network reads before it decides which of rows x cols blocks run.

    Frame and executed are read as (x - mean) / deviation. With d = mean over the channels of |frame - executed|,
    level' = momentum * level + (1 - momentum) * mean(d) (or mean(d) where level is NaN), s(x) =
    log(x + 0.1) / 2 and r = d / (level' + 0.001):

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
        mean, deviation: [c]: by which both pictures are standardised.
        level: a running mean of d; NaN where there is none yet.
        momentum: of `level`; 1 keeps it.
        logarithms: whether features are log-probabilities over k classes, at least two.

    Returns:
        (pixels [rows * s, cols * s, 2 c + 1 + k + 1]; summary [3 or 4, rows, cols]; the new level).

    Raises:
        SparseBlockError: sizes or dtypes do not fit.

    Example:
        >>> frame, executed, features = torch.rand(1, 3, 16, 24), torch.rand(1, 3, 16, 24), torch.rand(1, 5, 4, 6)
        >>> active, age = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.int64)
        >>> pixels, summary, level = sparseblock.dense.policy_inputs(
        ...     frame, executed, features, active, age, mean=[0.5] * 3, deviation=[0.3] * 3,
        ...     level=float("nan"), momentum=0.99, logarithms=False,
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
        and features.shape[1] > logarithms and len(mean) == len(deviation) == frame.shape[1]
    )  # fmt: skip
    if not fits:
        raise SparseBlockError(
            f"{op}: frame is {list(frame.shape)}, executed {list(executed.shape)}, features {list(features.shape)}, "
            f"active {active.dtype} {list(active.shape)} and age {age.dtype} {list(age.shape)}; frames must be "
            "[1, c, rows * s, cols * s], features [1, k, rows * m, cols * m] where m divides s (k at least 2 for "
            "logarithms), active bool and age int64 [rows, cols], mean and deviation one number a channel"
        )
    pixels = frame.new_empty(*frame.shape[2:], 2 * frame.shape[1] + 1 + features.shape[1] + 1)
    summary = frame.new_empty(3 + logarithms, rows, cols)
    frame, executed, features = (x.detach() for x in (frame, executed, features))
    if backend != "cpu":
        mean, deviation, level = (
            torch.as_tensor(x, dtype=torch.float64, device=frame.device) for x in (mean, deviation, level)
        )
    level = backends.implementation(backend, op)(
        frame, executed, mean, deviation, features, active, age, level, momentum, logarithms, pixels, summary
    )
    return pixels, summary, level


POLICY_KERNEL, POLICY_LAYERS = 4, 3
"""Pixels along the side of a kernel of the policy network, and its convolutions."""


def policy_logits(
    parameters: torch.Tensor, pixels: torch.Tensor, summary: torch.Tensor, widths: Sequence[int], bound: float
) -> tuple[torch.Tensor, Any]:
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
    maps: Any,
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
