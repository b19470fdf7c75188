"""Which axes of a value are the frame's rows and columns, followed through what moves data.

Networks make lists of pixels of maps, windows of them, matrices of attention between them, and maps again. Some of what
lies between has four axes too, at times of the sizes of a map: its blocks are none of the frame's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils import _pytree as pytree

from sparseblock.plan.ir import Node, Ref, Torch, Value


@dataclass(frozen=True)
class Part:
    """A part of an axis: `size` steps of `step` elements along `of`, which has `whole` of them."""

    of: str | int  # "rows", "columns", or the number of an axis that is neither
    step: int
    size: int
    whole: int

    @property
    def covers(self) -> bool:
        """Whether it goes along all of the frame, step by step."""
        return self.of in _FRAME and self.step * self.size == self.whole


Axis = tuple[Part, ...]  # the slowest first; none for a size of one
Axes = tuple[Axis, ...]

VIEWS = frozenset("view view_as reshape reshape_as _unsafe_view flatten unflatten squeeze unsqueeze".split())
_REDUCTIONS = frozenset("sum mean prod amax amin logsumexp".split())
_REORDERING = frozenset("einsum movedim moveaxis t numpy_T matrix_H mT mH adjoint rot90 tensordot".split())


class AxisTracker:
    """The axes of the values of a graph, node by node."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values
        self._axes: dict[str, Axes] = {}
        self._numbers: Iterator[int] = itertools.count()

    def is_frame(self, name: str) -> bool:
        """Whether the value is a map whose rows and columns are the frame's."""
        axes = self._axes[name]
        return (
            self._values[name].is_map
            and len(axes) == 4
            and all(len(axis) < 2 for axis in axes[2:])
            and all(part.of == of and part.covers for axis, of in zip(axes[2:], _FRAME, strict=True) for part in axis)
        )

    def add_frame(self, name: str) -> None:
        shape = self._values[name].shape
        self._axes[name] = (*map(self._other, shape[:2]), *map(_whole, _FRAME, shape[2:]))

    def add(self, node: Node) -> None:
        """The value of `node`; those of its inputs are known."""
        name, shape = node.output, self._values[node.output].shape
        if isinstance(node.op, Torch):
            axes = self._of_call(node.op, shape)
            self._axes[name] = axes if shape is None else self._fit(axes, shape)
        elif any(self.is_frame(x) for x in node.inputs if x == node.inputs[0] or self._size(x) == shape[2:]):
            self.add_frame(name)
        else:
            self._axes[name] = self._fit(self._axes[node.inputs[0]], shape)

    def _of_call(self, op: Torch, shape: tuple[int, ...] | None) -> Axes:
        """What the call makes of the axes of its arguments, as far as that is known."""
        sources = [self._axes[x.name] for x in pytree.tree_leaves((op.args, op.kwargs)) if isinstance(x, Ref)]
        if not sources:
            return ()
        source, name = sources[0], called(op)
        if name in VIEWS:
            return self._regrouped(source, shape)
        given = pytree.tree_leaves((op.args[1:], op.kwargs))
        numbers = [x for x in given if isinstance(x, int) and not isinstance(x, bool)]
        if name == "stack":
            at = (numbers or [0])[0] % (len(source) + 1)
            return (*source[:at], (), *source[at:])
        dims = [axis % len(source) for axis in numbers if source]
        match name:
            case "permute":
                return tuple(source[axis] for axis in dims)
            case "transpose" | "swapaxes" | "swapdims":
                return tuple(source[{dims[0]: dims[1], dims[1]: dims[0]}.get(i, i)] for i in range(len(source)))
            case "unbind" | "select":
                axis = dims[0] if dims else 0
                return (*source[:axis], *source[axis + 1 :])
            case _ if name in _REDUCTIONS and len(shape) < len(source):
                return tuple(axis for i, axis in enumerate(source) if i not in dims)
            case "write_elements" if not isinstance(op.args[0], Ref) and self._size(op.args[1].name) != shape[2:]:
                return ()  # a part of the frame, anywhere in what is none
            case "matmul" | "bmm" if len(sources) == 2:
                return (*source[:-1], *sources[1][-1:])
            case "scaled_dot_product_attention" if len(sources) > 2:
                return (*source[:-1], *sources[2][-1:])
        if name in _REORDERING:
            return ()
        alike = [axes for axes in sources if len(axes) == len(source)]
        return tuple(next(filter(None, axes), ()) for axes in zip(*alike, strict=True))  # one element counts for all

    def _fit(self, axes: Axes, shape: Sequence[int]) -> Axes:
        """`axes` for a value of `shape`: what was cut off or resized along the frame is still of the frame."""
        if len(axes) != len(shape):
            return tuple(map(self._other, shape))
        return tuple(map(self._resized, axes, shape))

    def _resized(self, axis: Axis, size: int) -> Axis:
        if math.prod(part.size for part in axis) == size:
            return axis
        return _whole(axis[0].of, size) if len(axis) == 1 and axis[0].covers else self._other(size)

    def _regrouped(self, axes: Axes, shape: Sequence[int]) -> Axes:
        """Of a view: the same elements in the same order."""
        parts, result = [part for axis in axes for part in axis], []
        for size in shape:
            axis: list[Part] = []
            while size > 1:
                if not parts or math.gcd(size, parts[0].size) not in (size, parts[0].size):
                    return ()
                slow = parts.pop(0)
                taken = min(size, slow.size)
                if taken < slow.size:
                    parts.insert(0, replace(slow, size=slow.size // taken))
                axis.append(replace(slow, step=slow.step * (slow.size // taken), size=taken))
                size //= taken
            result.append(_joined(axis))
        return tuple(result)

    def _other(self, size: int) -> Axis:
        return _whole(next(self._numbers), size)

    def _size(self, name: str) -> tuple[int, ...]:
        return (self._values[name].shape or ())[2:]


_FRAME = ("rows", "columns")


def _whole(of: str | int, size: int) -> Axis:
    return () if size == 1 else (Part(of, 1, size, size),)


def _joined(parts: list[Part]) -> Axis:
    """Parts that go on where the one before makes its next step are one."""
    joined: list[Part] = []
    for part in parts:
        if joined and joined[-1].of == part.of and joined[-1].step == part.step * part.size:
            part = replace(part, size=joined.pop().size * part.size)
        joined.append(part)
    return tuple(joined)


def called(op: Torch) -> str:
    """The name of the operator or function that the call is of."""
    is_operator = isinstance(op.target, torch._ops.OpOverload)
    return op.target._schema.name.removeprefix("aten::") if is_operator else getattr(op.target, "__name__", "")
