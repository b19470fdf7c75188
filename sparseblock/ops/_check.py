"""Validation of what users pass to an op. Each failure is one line: what, values, rule, what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sparseblock import backends
from sparseblock.algorithm import ALGORITHMS, NEEDS, obstacle
from sparseblock.blocks import BlockSet, check_place, describe, is_traced
from sparseblock.errors import SparseBlockError
from sparseblock.grid import LIMIT, cell_extent, pool_extent

ACTIVATIONS = (
    *(None, "relu", "relu6", "clamp", "leaky_relu", "prelu", "elu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh"),
    *("mish", "softplus", "hardsigmoid", "hardswish"),
)
_SLOPES = {"leaky_relu": 0.01, "elu": 1.0}  # torch.nn.functional's, where none is given

# An activation as backends know it: its name, slope [c] of "prelu" and "elu", and (low, high) of "clamp".
Fused = tuple[str | None, torch.Tensor | None, tuple[float, float] | None]


def shape(tensor: torch.Tensor) -> str:
    """`[n=2 c=4 h=64 w=64]`."""
    return shape_of(tensor.shape)


def shape_of(sizes: Sequence[int]) -> str:
    return "[" + " ".join(f"{axis}={size}" for axis, size in zip("nchw", sizes, strict=True)) + "]"


def shown(value: object) -> str:
    """What was given, in a line."""
    return describe(value) if isinstance(value, torch.Tensor) else repr(value)


def number(value: object) -> float:
    """`value` as a float; NaN, which fits no range, where it is no number or larger than any float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def flag(op: str, name: str, value: bool) -> None:
    """`value` is True or False."""
    if not isinstance(value, bool):
        raise SparseBlockError(f"{op}: {name} is {shown(value)}; it must be True or False")


def pair(op: str, name: str, value: int | Sequence[int], least: int, more: str = "") -> tuple[int, int]:
    """`value` for both axes, (vertical, horizontal); `more` is what else it may be, for the message."""
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise SparseBlockError(
            f"{op}: {name} is {shown(value)}; it must be an integer or two (vertical, horizontal){more}"
        )
    if min(sides) < least or max(sides) >= LIMIT:
        raise SparseBlockError(f"{op}: {name} is {value!r}; it must be at least {least} and below 2**31")
    return sides


def sides(op: str, value: object) -> tuple[tuple[int, int], tuple[int, int]]:
    """A padding as ((top, bottom), (left, right)); one number or (vertical, horizontal) are alike on both sides."""
    more = ", or ((top, bottom), (left, right))"
    if isinstance(value, Sequence) and len(value) == 2:
        if all(isinstance(side, Sequence) and len(side) == 2 for side in value):
            return tuple(pair(op, "padding", side, 0, more) for side in value)
    return tuple((side, side) for side in pair(op, "padding", value, 0, more))


def described(padding: tuple[tuple[int, int], tuple[int, int]]) -> tuple:
    """The padding as it is written most shortly."""
    return padding if any(a != b for a, b in padding) else tuple(side for side, _ in padding)


def padding_mode(op: str, mode: str, padding: Sequence[Sequence[int]], x: torch.Tensor, known: Sequence[str]) -> None:
    """A mode that exists, and a padding that it can fill from `x`."""
    if mode not in known:
        raise SparseBlockError(
            f"{op}: padding_mode is {mode!r}; it must be one of {', '.join(repr(name) for name in known)}"
        )
    for size, around in zip(x.shape[2:], padding, strict=True):
        most = {"reflect": size - 1, "circular": size}.get(mode, LIMIT)
        if max(around) > most:
            raise SparseBlockError(
                f"{op}: padding is {described(padding)} for x {shape(x)}; with padding_mode {mode!r} at most {most} "
                f"of {size} pixels can be padded on a side"
            )


def eps(op: str, value: float) -> None:
    """What keeps a norm from a division by zero."""
    if not 0 <= number(value) < math.inf:
        raise SparseBlockError(f"{op}: eps is {shown(value)}; it must be a finite number of at least 0")


def fill(op: str, value: float, out: torch.Tensor) -> None:
    """A number that `out` can hold."""
    largest = torch.finfo(out.dtype).max
    special = isinstance(value, float) and not math.isfinite(value)
    if not special and not abs(number(value)) <= largest:
        raise SparseBlockError(
            f"{op}: value is {shown(value)} for out in {out.dtype}; it must be a number of magnitude at most "
            f"{largest:.8g}, infinite, or NaN"
        )


def strided(op: str, name: str, tensor: torch.Tensor) -> None:
    """`tensor` is one, and has its elements in memory, not in a list."""
    if not isinstance(tensor, torch.Tensor):
        raise SparseBlockError(f"{op}: {name} is a {type(tensor).__name__}; it must be a torch.Tensor")
    if tensor.layout != torch.strided:
        raise SparseBlockError(f"{op}: {name} is {tensor.layout}; it must be a dense tensor: {name}.to_dense()")


def planes(op: str, out: torch.Tensor, **inputs: torch.Tensor) -> None:
    """Every feature map is [n, c, h, w], not empty, channels-last; `out` has no element twice."""
    for name, tensor in {**inputs, "out": out}.items():
        if not isinstance(tensor, torch.Tensor):
            raise SparseBlockError(f"{op}: {name} is a {type(tensor).__name__}; it must be a torch.Tensor [n, c, h, w]")
        strided(op, name, tensor)
        if tensor.dim() != 4:
            raise SparseBlockError(
                f"{op}: {name} has {tensor.dim()} axes {list(tensor.shape)}; it must have 4: [n, c, h, w]"
            )
        if min(tensor.shape) < 1 or max(tensor.shape) >= LIMIT:
            raise SparseBlockError(f"{op}: {name} is {shape(tensor)}; every axis must be at least 1 and below 2**31")
        if tensor.shape[1] > 1 and tensor.stride(1) != 1:
            raise SparseBlockError(
                f"{op}: {name} has strides {tensor.stride()}; it must be channels-last (stride 1 over channels): "
                f"{name}.contiguous(memory_format=torch.channels_last)"
            )
    dense = 1
    for axis in (1, 3, 2, 0):
        if out.shape[axis] > 1 and out.stride(axis) < dense:
            raise SparseBlockError(
                f"{op}: out {shape(out)} has strides {out.stride()}; elements must lie apart in the order n, h, w, c: "
                "allocate it with memory_format=torch.channels_last"
            )
        dense += (out.shape[axis] - 1) * out.stride(axis) if out.shape[axis] > 1 else 0


def tensors(op: str, out: torch.Tensor, **inputs: torch.Tensor | None) -> None:
    """Feature maps: one device, one dtype that the backend knows, an `out` to write to. `inputs`: x first."""
    _tensors(op, out, (out.dtype,), inputs)
    writable(op, out)


def maps(op: str, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
    """Feature maps that are read: one device, one dtype that the backend knows."""
    _tensors(op, x, (x.dtype,), {"y": y}, "x")


def writable(op: str, out: torch.Tensor) -> None:
    """`out` is no leaf of a graph."""
    if torch.is_grad_enabled() and out.requires_grad and out.is_leaf:
        raise SparseBlockError(
            f"{op}: out requires grad and is nobody's result, so what is written over it would be lost; "
            "pass out.clone(), or call the op under torch.no_grad()"
        )


def parameters(op: str, out: torch.Tensor, own: str = "out", /, **inputs: torch.Tensor | None) -> None:
    """As `tensors` for what is no feature map: beside maps in bfloat16 or float16 it may be float32 too.

    Errors call the map that is given as `out` by the name `own`.
    """
    _tensors(op, out, (out.dtype,) if out.dtype.itemsize > 2 else (out.dtype, torch.float32), inputs, own)


def _tensors(
    op: str,
    out: torch.Tensor,
    dtypes: tuple[torch.dtype, ...],
    inputs: dict[str, torch.Tensor | None],
    own: str = "out",
) -> None:
    given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    for name, tensor in given.items():
        strided(op, name, tensor)
    try:
        backend = backends.selected(out.device)
    except SparseBlockError as error:
        raise SparseBlockError(f"{op}: {error}") from None
    if out.dtype not in backends.DTYPES[backend]:
        known = " or ".join(str(dtype) for dtype in backends.DTYPES[backend])
        raise SparseBlockError(f"{op}: {own} is {out.dtype}; the {backend} backend takes {known}: convert the tensors")
    for name, tensor in given.items():
        if tensor.device != out.device:
            raise SparseBlockError(
                f"{op}: {name} is on {tensor.device} but {own} is on {out.device}; all tensors must be on one device"
            )
        if tensor.dtype not in dtypes:
            rule = "all tensors must have one dtype" if len(dtypes) == 1 else f"{name} must have that dtype or float32"
            raise SparseBlockError(f"{op}: {name} is {tensor.dtype} but {own} is {out.dtype}; {rule}")


def out_shape(op: str, out: torch.Tensor, expected: Sequence[int], **inputs: torch.Tensor) -> None:
    """`out` has the shape that the dense op gives."""
    if tuple(out.shape) != tuple(expected):
        given = ", ".join(f"{name}: {shape(tensor)}" for name, tensor in inputs.items())
        raise SparseBlockError(
            f"{op}: out is {shape(out)} but the dense op gives {shape_of(expected)} ({given}); "
            "allocate out with that shape"
        )


def same_shape(op: str, out: torch.Tensor, own: str = "out", /, **inputs: torch.Tensor) -> None:
    """Each input has the shape of `out`, which errors call `own`."""
    for name, tensor in inputs.items():
        if tensor.shape != out.shape:
            raise SparseBlockError(
                f"{op}: {name} is {shape(tensor)} but {own} is {shape(out)}; both must have one shape"
            )


def blocks(op: str, active: BlockSet, out: torch.Tensor, name: str = "out") -> None:
    """`active` is a grid that covers `out` exactly: no block missing, none outside."""
    if not isinstance(active, BlockSet):
        raise SparseBlockError(
            f"{op}: blocks is a {type(active).__name__}; it must be a BlockSet: BlockSet.from_mask(mask, block)"
        )
    check_place(op, active, name, out.device)
    n, _, h, w = out.shape
    block_h, block_w = active.block
    needed = (n, -(-h // block_h), -(-w // block_w))
    if active.grid != needed:
        raise SparseBlockError(
            f"{op}: blocks are a grid of {list(active.grid)} blocks of {block_h}x{block_w} px, but {name} {shape(out)} "
            f"takes {list(needed)}; [n, rows, cols] must cover {name} exactly"
        )


def apart(op: str, out: torch.Tensor, place: torch.Tensor | None = None, **inputs: torch.Tensor | None) -> None:
    """No element of an input is an element of `out`; but an input may be exactly `place`, where it is written to.

    Tensors that are traced have no memory yet, so nothing is known of them.
    """
    if is_traced(out):
        return
    for name, tensor in inputs.items():
        if tensor is None or (place is not None and _same(tensor, place)) or not _overlap(tensor, out):
            continue
        rule = "they must lie apart" if place is None else "they must lie apart or be the same elements"
        raise SparseBlockError(f"{op}: {name} and out share memory; {rule}: pass {name}.clone()")


def packed(op: str, name: str, tensor: torch.Tensor, active: BlockSet, channels: int, halo: int) -> None:
    """`tensor` holds packed blocks of `active` with `halo`, [capacity, c, h, w], channels-last without gaps."""
    height, width = (side + 2 * halo for side in active.block)
    expected = (len(active.index), channels, height, width)
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != expected:
        described = list(tensor.shape) if isinstance(tensor, torch.Tensor) else f"a {type(tensor).__name__}"
        raise SparseBlockError(
            f"{op}: {name} is {described} for {expected[0]} blocks of {active.block[0]}x{active.block[1]} px with halo "
            f"{halo} and {channels} channels; it must be {list(expected)}"
        )
    strided(op, name, tensor)
    if not tensor.is_contiguous(memory_format=torch.channels_last):
        raise SparseBlockError(
            f"{op}: {name} has strides {tensor.stride()}; it must be channels-last without gaps: "
            f"{name}.contiguous(memory_format=torch.channels_last)"
        )


def window(
    op: str,
    x: torch.Tensor,
    out: torch.Tensor,
    active: BlockSet,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> tuple[tuple[int, int], ...]:
    """Everything that a pooling op takes; returns kernel size, stride, padding and dilation as pairs."""
    planes(op, out, x=x)
    tensors(op, out, x=x)
    flag(op, "ceil_mode", ceil_mode)
    kernel = pair(op, "kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair(op, "stride", stride, 1)
    padding, dilation = pair(op, "padding", padding, 0), pair(op, "dilation", dilation, 1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise SparseBlockError(f"{op}: padding is {padding} for kernel_size {kernel}; it must be at most half of it")
    axes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    extent = [pool_extent(*sizes, ceil_mode) for sizes in axes]
    if min(extent) < 1:
        raise SparseBlockError(
            f"{op}: a window of {kernel[0]}x{kernel[1]} (dilation {dilation}) does not fit into x {shape(x)} "
            f"with padding {padding}; pad more or pass a larger x"
        )
    out_shape(op, out, (*x.shape[:2], *extent), x=x)
    blocks(op, active, out)
    apart(op, out, x=x)
    return kernel, stride, padding, dilation


def adaptive(op: str, x: torch.Tensor, out: torch.Tensor, active: BlockSet) -> None:
    """Everything that an adaptive pooling op takes; `out` may be of any size."""
    planes(op, out, x=x)
    tensors(op, out, x=x)
    out_shape(op, out, (*x.shape[:2], *out.shape[2:]), x=x)
    blocks(op, active, out)
    apart(op, out, x=x)


def statistics(op: str, own: str, x: torch.Tensor, /, **sums: torch.Tensor) -> None:
    """Sums over pixels of `x`, which errors call `own`, are float32 beside bfloat16 or float16: nothing is rounded."""
    parameters(op, x, own, **sums)
    expected = torch.promote_types(x.dtype, torch.float32)
    for name, tensor in sums.items():
        if tensor.dtype != expected:
            raise SparseBlockError(f"{op}: {name} is {tensor.dtype} but {own} is {x.dtype}; {name} must be {expected}")


def moments(op: str, given: torch.Tensor, of: Sequence[int], cell: tuple[int, int], order: int) -> None:
    """`given` has the shape of the moments of a map of shape `of` [n, c, h, w]."""
    n, c, *size = of
    expected = (n, order * c, *(cell_extent(*axis) for axis in zip(size, cell, strict=True)))
    if tuple(given.shape) != expected:
        raise SparseBlockError(
            f"{op}: moments is {shape(given)} for a map {shape_of(of)} in cells of {cell[0]}x{cell[1]} px; "
            f"it must be {shape_of(expected)}: block_moments of order {order}"
        )


def channel_vector(op: str, name: str, vector: torch.Tensor | None, channels: int) -> None:
    """One value per output channel."""
    if vector is not None and tuple(vector.shape) != (channels,):
        raise SparseBlockError(
            f"{op}: {name} is {list(vector.shape)} for {channels} output channels; it must be [{channels}]"
        )


def algorithm(
    op: str, name: str, kernel, stride, groups: int, per_group: int, dtype: torch.dtype, padding_mode: str
) -> None:
    """`name` is an algorithm that can compute this convolution."""
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise SparseBlockError(f"{op}: algorithm is {name!r}; it must be one of {', '.join(ALGORITHMS)}")
    against = obstacle(name, kernel, stride, groups, per_group, dtype, padding_mode=padding_mode)
    if against:
        raise SparseBlockError(f"{op}: algorithm is {name!r}, but {against}; it needs {NEEDS[name]}: use 'direct'")


def activation(
    op: str,
    name: str | None,
    slope: float | torch.Tensor | None,
    bounds: Sequence[float] | None,
    out: torch.Tensor,
) -> Fused:
    """The activation as backends know it: leaky ReLU is a PReLU, ReLU6 a clamp."""
    if name not in ACTIVATIONS:
        known = ", ".join(repr(known) for known in ACTIVATIONS)
        raise SparseBlockError(f"{op}: activation is {name!r}; it must be one of {known}")
    if bounds is not None and name != "clamp":
        raise SparseBlockError(f"{op}: bounds are given, but activation {name!r} has none; leave them out")
    if slope is not None and name not in ("leaky_relu", "prelu", "elu"):
        raise SparseBlockError(f"{op}: slope is given, but activation {name!r} has none; leave it out")
    if name == "clamp":
        return name, None, _bounds(op, bounds)
    if name == "relu6":
        return "clamp", None, (0.0, 6.0)
    if name in ("leaky_relu", "prelu", "elu"):
        kernel = "elu" if name == "elu" else "prelu"
        return kernel, _slope(op, name, _SLOPES.get(name) if slope is None else slope, out), None
    return name, None, None


def _bounds(op: str, bounds: Sequence[float] | None) -> tuple[float, float]:
    pair = tuple(bounds) if isinstance(bounds, Sequence) else ()
    if len(pair) != 2 or not number(pair[0]) <= number(pair[1]):
        raise SparseBlockError(
            f"{op}: bounds of 'clamp' are {shown(bounds)}; they must be two numbers, low <= high, "
            "infinite where there is none"
        )
    return float(pair[0]), float(pair[1])


def _slope(op: str, name: str, slope: float | torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
    channels = out.shape[1]
    dtype = torch.promote_types(out.dtype, torch.float32)
    if abs(number(slope)) <= torch.finfo(dtype).max:
        return torch.full((channels,), slope, dtype=dtype, device=out.device)
    if not isinstance(slope, torch.Tensor) or tuple(slope.shape) not in ((channels,), (1,)):
        described = list(slope.shape) if isinstance(slope, torch.Tensor) else repr(slope)
        raise SparseBlockError(
            f"{op}: slope of {name!r} is {described}; it must be a finite number ({dtype}) or a tensor [{channels}] "
            "or [1]"
        )
    strided(op, "slope", slope)
    return slope.expand(channels)


def second_input(op: str, name: str, tensor: torch.Tensor, out: torch.Tensor) -> None:
    """`tensor` has the shape of `out`, or one pixel or one channel that counts for all."""
    n, c, h, w = out.shape
    if tuple(tensor.shape) not in ((n, c, h, w), (n, c, 1, 1), (n, 1, h, w)):
        raise SparseBlockError(
            f"{op}: {name} is {shape(tensor)} but out is {shape(out)}; it must have that shape, or one pixel or one "
            f"channel that counts for all: {shape_of((n, c, 1, 1))} or {shape_of((n, 1, h, w))}"
        )


def combination(op: str, combine: str) -> None:
    """How a residual is taken in."""
    if combine not in ("add", "mul"):
        raise SparseBlockError(f"{op}: combine is {combine!r}; it must be 'add' or 'mul'")


def pointwise(
    op: str,
    active: BlockSet,
    out: torch.Tensor,
    name: str | None,
    slope: float | torch.Tensor | None,
    bounds: Sequence[float] | None,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
) -> Fused:
    """Everything that an element-wise op takes; returns the activation as backends know it."""
    inputs = {"x": x} if y is None else {"x": x, "y": y}
    planes(op, out, **inputs)
    tensors(op, out, **inputs)
    same_shape(op, out, x=x)
    if y is not None:
        second_input(op, "y", y, out)
    fused = activation(op, name, slope, bounds, out)
    parameters(op, out, slope=fused[1])
    blocks(op, active, out)
    apart(op, out, place=out, **inputs)
    return fused


def divides(value: int, size: int, power: int = 1) -> bool:
    """Whether `value` is a positive integer, and it, or its square with `power` 2, divides `size`."""
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value < LIMIT
    return whole and size % value**power == 0


def factor(op: str, name: str, value: int, divided: Sequence[int], power: int = 1) -> None:
    """`value`, or its square with `power` 2, divides every number of `divided`, channels or sides."""
    if not all(divides(value, size, power) for size in divided):
        whole = f"{'x'.join(map(str, divided))} {'channels' if len(divided) == 1 else 'px'}"
        raise SparseBlockError(
            f"{op}: {name} is {shown(value)} for {whole}; "
            f"it must be a positive integer {'whose square' if power == 2 else 'that'} divides them"
        )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        _start(a) == _start(b)
        and a.shape == b.shape
        and all(
            size == 1 or stride_a == stride_b
            for size, stride_a, stride_b in zip(a.shape, a.stride(), b.stride(), strict=True)
        )
    )


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors may share an element. Exact for boxes of one plane: images, rows, columns, channels."""
    start_a, start_b = _start(a), _start(b)
    if start_a + _span(a, range(a.dim())) <= start_b or start_b + _span(b, range(b.dim())) <= start_a:
        return False
    if a.dim() != 4 or a.stride() != b.stride():
        return True
    # Both boxes repeat with the period of a pixel, a row and an image: apart within one of these is apart.
    order = sorted(range(4), key=a.stride)
    for inner in range(1, 4):
        period = a.stride(order[inner])
        if period and not any(a.stride(axis) % period for axis in order[inner:]):
            ahead = (start_b - start_a) % period
            if ahead >= _span(a, order[:inner]) and ahead + _span(b, order[:inner]) <= period:
                return False
    return True


def _span(tensor: torch.Tensor, axes: Sequence[int]) -> int:
    """Elements from the first to the last along `axes`."""
    return 1 + sum((tensor.shape[axis] - 1) * tensor.stride(axis) for axis in axes)


def _start(tensor: torch.Tensor) -> int:
    """Where the first element lies, in elements."""
    return tensor.data_ptr() // tensor.element_size()
