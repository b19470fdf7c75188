"""The planner's intermediate representation: a network as plain frozen data.

A `Graph` is a list of nodes in an order in which they can run. Each node makes one value. Passes take a graph and
return another; nothing is changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch

Pair = tuple[int, int]  # vertical, horizontal


@dataclass(frozen=True)
class Value:
    """What a node makes.

    Attributes:
        name: unique in its graph.
        shape: of one image, [1, c, h, w] for a feature map; None for what is no tensor.
        dtype: None for what is no tensor.
        stride: pixels of the frame per element along both axes, below 1 where the map is larger than the frame; None
            where the two axes differ or nothing says.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    stride: Fraction | None = None

    @property
    def is_map(self) -> bool:
        """Whether it is a float32 feature map [1, c, h, w], the one kind that has block-sparse rules."""
        shape = self.shape or ()
        return self.dtype == torch.float32 and len(shape) == 4 and shape[0] == 1 and min(shape) > 0


@dataclass(frozen=True)
class Ref:
    """A value among the arguments of a torch call or the outputs of a graph."""

    name: str


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What is done to a sum before it is stored: activation((v + residual) * scale[c] + shift[c]).

    The residual is the node's second input; with `combine` "mul" it is multiplied instead of added. It has the shape of
    the result, or one pixel or one channel that counts for all. Vectors are float32 [c]; `slope` belongs to "prelu", as
    which leaky ReLU counts too, and to "elu", `bounds` to "clamp", as which ReLU6 counts.
    """

    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    activation: str | None = None  # a name of sparseblock.backends.cpu.native.ACTIVATIONS
    slope: torch.Tensor | None = None
    bounds: tuple[float, float] | None = None
    combine: str = "add"

    @property
    def is_affine(self) -> bool:
        return self.scale is not None or self.shift is not None

    def channels(self, start: int, stop: int) -> Epilogue:
        """The part for channels [start, stop)."""
        vectors = (None if v is None else v[start:stop].clone() for v in (self.scale, self.shift, self.slope))
        scale, shift, slope = vectors
        return replace(self, scale=scale, shift=shift, slope=slope)


@dataclass(frozen=True, eq=False)
class Conv2d:
    """A convolution, weight [k, c / groups, r, s], or a transposed one, weight [c, k / groups, r, s]; bias [k].

    `padding` is at the top and on the left; the size of the result tells how much is read below and on the right.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    transposed: bool = False
    padding_mode: str = "zeros"  # "zeros", "reflect", "replicate", "circular"


@dataclass(frozen=True)
class Pool2d:
    """Maximum ("max") or average ("avg") over a window; `divisor` 0 counts the elements.

    `padding` as in a convolution; what is `outside` counts for a maximum.

    The windows of an `adaptive` one follow from the sizes: output i of o takes [floor(i h / o), ceil((i + 1) h / o)).
    """

    kind: str
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    count_include_pad: bool = True
    divisor: int = 0
    adaptive: bool = False
    outside: float = -math.inf


@dataclass(frozen=True)
class Interpolate:
    """Resize, "nearest" or "bilinear"; `factors` are output per input pixels where the network gives them."""

    mode: str
    align_corners: bool
    factors: tuple[float, float] | None


@dataclass(frozen=True)
class GlobalPool:
    """The average ("avg") or maximum ("max") of a whole map of `size` pixels, [1, c, 1, 1].

    With a `cell`, its input is not the map but what each cell of so many pixels comes to (`BlockMoments`, maxima).
    """

    kind: str
    size: Pair
    cell: Pair | None = None


@dataclass(frozen=True)
class GroupNorm:
    """Normalization over the frame and groups of channels; weight and bias are the epilogue's scale and shift.

    With a `cell`, its second input are the moments of its first, of order 2, in cells of so many pixels.
    """

    groups: int
    eps: float
    cell: Pair | None = None


@dataclass(frozen=True)
class ChannelNorm:
    """The channels of every pixel brought to one scale; weight and bias of "layer_norm" are the epilogue's.

    "softmax"; "normalize", over their L2 norm, or over `eps` where that is larger; "layer_norm".
    """

    kind: str
    eps: float


@dataclass(frozen=True)
class BlockMoments:
    """The mean of every cell of so many pixels, and, with order 2, its squared deviations after the means."""

    cell: Pair
    order: int


@dataclass(frozen=True)
class Pad:
    """Pixels around a map: `padding` is (top, bottom), (left, right), below zero where a constant pad crops."""

    mode: str  # "constant", "reflect", "replicate", "circular"
    padding: tuple[Pair, Pair]
    value: float = 0.0


@dataclass(frozen=True)
class Shuffle:
    """Elements in another order, `factor` pixels along both axes, or groups of channels, being exchanged."""

    kind: str  # "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"
    factor: int


@dataclass(frozen=True)
class Pointwise:
    """The epilogue alone: copy, add, affine, activation."""


@dataclass(frozen=True)
class Concat:
    """Inputs side by side along the channels. Its inputs are written straight into its plane."""


@dataclass(frozen=True)
class Slice:
    """Channels from `start` on, as many as the value has. A view."""

    start: int


@dataclass(frozen=True, eq=False)
class Torch:
    """A call to torch on whole planes, for what has no block-sparse rule; `args` and `kwargs` hold `Ref`s."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reason: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Operators of torch cannot be pickled, their names can."""
        target = self.target.name() if isinstance(self.target, torch._ops.OpOverload) else self.target
        return _torch_by_name, (target, self.args, self.kwargs, self.reason)


Op = (
    Conv2d
    | Pool2d
    | Interpolate
    | GlobalPool
    | GroupNorm
    | ChannelNorm
    | BlockMoments
    | Pad
    | Shuffle
    | Pointwise
    | Concat
    | Slice
    | Torch
)


@dataclass(frozen=True, eq=False)
class Node:
    """One operator.

    Attributes:
        op: what it computes.
        inputs: names of values; those of a convolution or pointwise node are (x,) or (x, residual).
        output: name of the value it makes, which also names the node.
        epilogue: of a convolution, group norm, layer norm or pointwise node.
        origin: path of the module it comes from, "" where there is none.
        gated: whether a gate may leave tiles of it out; then it takes up no residual, which is to stay fresh.
    """

    op: Op
    inputs: tuple[str, ...]
    output: str
    epilogue: Epilogue = Epilogue()
    origin: str = ""
    gated: bool = False

    @property
    def residual(self) -> str | None:
        return self.inputs[1] if isinstance(self.op, (Conv2d, Pointwise)) and len(self.inputs) > 1 else None

    @property
    def is_view(self) -> bool:
        """Whether it moves no data."""
        return isinstance(self.op, (Concat, Slice))

    @property
    def name(self) -> str:
        """Its module, or where it comes from none, its value: what reports, errors and options call it."""
        return self.origin or self.output

    @property
    def title(self) -> str:
        """Its name and what it computes."""
        return f"{self.name}: {self.label}"

    @property
    def label(self) -> str:
        """What it computes, in words: "conv2d+add+affine+relu"."""
        match self.op:
            case Torch(target=target):
                return _target_name(target)
            case Conv2d(transposed=transposed):
                parts = ["conv_transpose2d" if transposed else "conv2d"]
            case Pool2d(kind=kind) as node_op:
                parts = [f"adaptive_{kind}_pool2d" if node_op.adaptive else f"{kind}_pool2d"]
            case Interpolate(mode=mode):
                parts = [mode]
            case GlobalPool(kind=kind):
                parts = [f"global_{kind}_pool2d"]
            case GroupNorm():
                return "+".join(filter(None, ["group_norm", self.epilogue.activation]))
            case ChannelNorm(kind=kind):
                return "+".join(filter(None, [kind, self.epilogue.activation]))
            case Shuffle(kind=kind):
                parts = [kind]
            case BlockMoments():
                parts = ["block_moments"]
            case Pointwise():
                parts = []
            case _:
                parts = [type(self.op).__name__.lower()]
        if self.residual is not None:
            parts.append(self.epilogue.combine)
        if self.epilogue.is_affine:
            parts.append("affine")
        if self.epilogue.activation == "clamp":
            parts.append("clamp({:g}, {:g})".format(*self.epilogue.bounds))
        elif self.epilogue.activation is not None:
            parts.append(self.epilogue.activation)
        return "+".join(parts) or "copy"


@dataclass(frozen=True, eq=False)
class Graph:
    """A network on one image.

    Attributes:
        nodes: in an order in which they can run.
        values: every value by name, the inputs' too.
        inputs: names of the values that a caller gives: the frame, or several maps.
        outputs: the leaves of what the network returns: `Ref`s, and constants as they are.
    """

    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[Any, ...]

    def producers(self) -> dict[str, Node]:
        return {node.output: node for node in self.nodes}

    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each value, once per reading."""
        readers: dict[str, list[Node]] = {name: [] for name in self.values}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return readers

    def output_names(self) -> set[str]:
        return {leaf.name for leaf in self.outputs if isinstance(leaf, Ref)}

    def used_nodes(self) -> list[Node]:
        """Those whose values reach an output, in order."""
        needed, used = self.output_names(), []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                used.append(node)
        return used[::-1]

    def with_nodes(self, nodes: list[Node], new_values: Iterator[Value] | list[Value] = ()) -> Graph:
        """The same network as `nodes`; values that nothing makes any more are dropped."""
        known = {**self.values, **{value.name: value for value in new_values}}
        kept = [*self.inputs, *(node.output for node in nodes)]
        return replace(self, nodes=tuple(nodes), values={name: known[name] for name in kept})


def _target_name(target: Callable[..., Any]) -> str:
    return str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def _torch_by_name(target: Any, *rest: Any) -> Torch:
    if isinstance(target, str):
        namespace, name = target.split("::")
        packet, _, overload = name.partition(".")
        target = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
    return Torch(target, *rest)
