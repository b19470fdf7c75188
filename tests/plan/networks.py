"""Small networks for the planner's tests, drawn at random; `miniatures.py` has small ones of those that matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn


@dataclass(frozen=True)
class Case:
    """A network, the frame's [c, h, w], and the size of a block."""

    network: nn.Module
    frame: tuple[int, int, int]
    block: int

    def frames(self, streams: int = 1) -> torch.Tensor:
        return torch.randn(streams, *self.frame)


class Program(nn.Module):
    """A list of instructions, each on earlier values; instruction i makes value i + 1, value 0 is the frame."""

    def __init__(self, instructions: list[tuple], outputs: list[int]) -> None:
        super().__init__()
        self.instructions = instructions
        self.modules_ = nn.ModuleList(item[0] for item in instructions)
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        values = [x]
        for module, (_, sources) in zip(self.modules_, self.instructions, strict=True):
            values.append(module(*(values[i] for i in sources)))
        return [values[i] for i in self.outputs]

    def extra_repr(self) -> str:
        return "\n".join(f"{i + 1} = {module} of {sources}" for i, (module, sources) in enumerate(self.instructions))


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, name: str, function) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.function(*values)

    def extra_repr(self) -> str:
        return self.name


def set_norms(network: nn.Module) -> nn.Module:
    """`network` in eval mode with batch norms that do something and slopes that differ."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, (nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 1.0)
    return network.eval()


@st.composite
def cases(draw, longest: int = 7) -> Case:
    """A network of up to `longest` operators on a frame of any size."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    frame = (draw(st.integers(1, 4)), draw(st.integers(5, 41)), draw(st.integers(5, 41)))
    shapes = [(1, *frame)]
    instructions: list[tuple] = []
    for _ in range(draw(st.integers(1, longest))):
        source = draw(st.integers(0, len(shapes) - 1))
        make = draw(st.sampled_from(_MAKERS))
        made = make(draw, shapes, source)
        if made is None:
            continue
        module, sources = made
        with torch.no_grad():
            result = module.eval()(*(torch.zeros(shapes[i]) for i in sources))
        if min(result.shape) < 1 or result.numel() > 40_000:
            continue
        instructions.append((module, sources))
        shapes.append(tuple(result.shape))
    outputs = sorted({len(shapes) - 1, draw(st.integers(0, len(shapes) - 1))})
    block = draw(st.sampled_from([8, 12, 16]))
    return Case(set_norms(Program(instructions, outputs)), frame, block)


def _conv(draw, shapes, source):
    c = shapes[source][1]
    k = draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, c]))
    out = groups * draw(st.integers(1, 3)) if groups > 1 else draw(st.integers(1, 9))
    padding = draw(st.integers(0, dilation * (k - 1)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    if padding >= min(shapes[source][2:]):
        mode = "zeros"
    if min(shapes[source][2:]) + 2 * padding < dilation * (k - 1) + 1:
        return None
    bias = draw(st.booleans())
    stride = draw(st.integers(1, 2))
    return nn.Conv2d(c, out, k, stride, padding, dilation, groups, bias, mode), [source]


def _pad(draw, shapes, source):
    """Padding alone, or before a convolution or pool that could take it in."""
    c, h, w = shapes[source][1:]
    mode = draw(st.sampled_from(["constant", "constant", "reflect", "replicate", "circular"]))
    most = min(3, min(h, w) - 1)
    sides = draw(st.lists(st.integers(-1 if mode == "constant" else 0, most), min_size=4, max_size=4))
    value = draw(st.sampled_from([0.0, 0.0, 0.5])) if mode == "constant" else None
    pad = Call(f"pad {sides} {mode} {value}", lambda x: F.pad(x, sides, mode, value))
    reader = draw(
        st.sampled_from(
            [
                nn.Identity,
                lambda: nn.Conv2d(c, 3, 3, 2),
                lambda: nn.Conv2d(c, 3, 3, 1, 1),
                lambda: nn.Conv2d(c, c, 2, padding="same", groups=c),
                lambda: nn.MaxPool2d(3, 2),
                lambda: nn.MaxPool2d(3, 2, 1),
                lambda: nn.AvgPool2d(2, ceil_mode=True),
            ]
        )
    )
    return (nn.Sequential(pad, reader()), [source]) if min(h, w) >= 6 else None


def _conv_transpose(draw, shapes, source):
    c = shapes[source][1]
    k, padding, extra = draw(st.sampled_from([(2, 0, 0), (3, 1, 1), (4, 1, 0), (1, 0, 1)]))
    groups = draw(st.sampled_from([1, c]))
    out = groups * draw(st.integers(1, 3))
    return nn.ConvTranspose2d(c, out, k, 2, padding, extra, groups, bias=draw(st.booleans())), [source]


def _norm(draw, shapes, source):
    return nn.BatchNorm2d(shapes[source][1]), [source]


def _frame_norm(draw, shapes, source):
    """Norms by the statistics of the frame."""
    _, c, h, w = shapes[source]
    if h * w == 1:
        return None
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    affine = draw(st.booleans())
    make = draw(
        st.sampled_from([lambda: nn.GroupNorm(groups, c, affine=affine), lambda: nn.InstanceNorm2d(c, affine=affine)])
    )
    return make(), [source]


class ChannelsLast(nn.Module):
    """Layers on a map with its channels last."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _channel_norm(draw, shapes, source):
    """Norms over channels."""
    c = shapes[source][1]
    affine = draw(st.booleans())
    make = draw(
        st.sampled_from(
            [
                lambda: nn.Softmax(1),
                lambda: Call("normalize", lambda x: F.normalize(x, dim=1, eps=0.1)),
                lambda: ChannelsLast(nn.LayerNorm(c, 0.1, affine), nn.Linear(c, 4), nn.ReLU(), nn.Softmax(-1)),
                lambda: nn.Sequential(ChannelsLast(nn.LayerNorm(c, 0.1, affine)), nn.Tanh()),
            ]
        )
    )
    return make(), [source]


def _global(draw, shapes, source):
    name, function = draw(
        st.sampled_from(
            [
                ("mean", lambda x: x.mean((2, 3), keepdim=True)),
                ("amax", lambda x: x.amax((-1, -2), keepdim=True)),
                ("max to 1x1", lambda x: F.adaptive_max_pool2d(x, 1)),
                ("mean, back to the size", lambda x: F.interpolate(F.adaptive_avg_pool2d(x, 1), x.shape[2:])),
                ("mean, everywhere", lambda x: x.mean((2, 3))[:, :, None, None].expand_as(x)),
            ]
        )
    )
    return Call(name, function), [source]


class _Excitation(nn.Module):
    """Linear layers on the mean of the frame, as maps of one pixel again."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(c, 4), nn.ReLU(), nn.Linear(4, c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(F.adaptive_avg_pool2d(x, 1).flatten(1)).view(1, -1, 1, 1).expand_as(x)


def _excitation(draw, shapes, source):
    return _Excitation(shapes[source][1]), [source]


def _activation(draw, shapes, source):
    c = shapes[source][1]
    make = draw(
        st.sampled_from(
            [
                *(nn.ReLU, nn.ReLU6, lambda: nn.LeakyReLU(0.1), lambda: nn.PReLU(c), nn.PReLU, nn.Dropout, nn.Identity),
                *(nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, lambda: nn.GELU("tanh"), nn.Mish, nn.Softplus, nn.Hardsigmoid),
                *(nn.Hardswish, nn.Hardtanh, lambda: nn.ELU(0.5), lambda: nn.CELU(0.5), nn.SELU),
            ]
        )
    )
    return make(), [source]


def _arithmetic(draw, shapes, source):
    constant = torch.randn(shapes[source][1], 1, 1)
    name, function = draw(
        st.sampled_from(
            [
                ("x * 0.5 + 1", lambda x: x * 0.5 + 1),
                ("x - constant", lambda x: x - constant),
                ("constant - x", lambda x: constant - x),
                ("-x / 3", lambda x: -x / 3),
                ("relu_ of a clone, added", lambda x: x.clone().relu_().add_(x)),
                ("x + x", lambda x: x + x),
                ("swish by hand", lambda x: x * torch.sigmoid(x)),
                ("hardswish by hand", lambda x: x * F.relu6(x + 3) / 6),
                ("|clamped|", lambda x: x.clamp(-0.5, 0.25).abs()),
                ("a constant and a product", lambda x: torch.addcmul(constant, x, constant, value=2)),
                ("a map and a product", lambda x: torch.addcmul(x, torch.sigmoid(x[:, :1]), x, value=-0.5)),
                ("gate of pixels", lambda x: x * torch.sigmoid(x[:, :1])),
                ("gate of channels", lambda x: torch.sigmoid(F.adaptive_avg_pool2d(x, 1)) * x),
            ]
        )
    )
    return Call(name, function), [source]


def _join(draw, shapes, source):
    alike = [i for i, shape in enumerate(shapes) if shape[2:] == shapes[source][2:]]
    others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3))
    return Call("cat", lambda *values: torch.cat(values, 1)), [source, *others]


def _add(draw, shapes, source):
    other = draw(st.sampled_from([i for i, shape in enumerate(shapes) if shape == shapes[source]]))
    name, function = draw(
        st.sampled_from(
            [
                *(("add", torch.add), ("sub", torch.sub), ("add half", lambda a, b: torch.add(a, b, alpha=0.5))),
                ("mul", lambda a, b: a.tanh() * b),
            ]
        )
    )
    return Call(name, function), [source, other]


def _pool(draw, shapes, source):
    if min(shapes[source][2:]) < 3:
        return None
    ceil = draw(st.booleans())
    counted = draw(st.booleans())
    make = draw(
        st.sampled_from(
            [
                lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=ceil),
                lambda: nn.MaxPool2d(2, ceil_mode=ceil),
                lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=ceil, count_include_pad=counted),
                lambda: nn.AvgPool2d(2),
                lambda: nn.AdaptiveAvgPool2d((2, 3)),
                lambda: nn.AdaptiveAvgPool2d((3, None)),
                lambda: nn.AdaptiveMaxPool2d((2, 3)),
                lambda: nn.AdaptiveAvgPool2d(1),
            ]
        )
    )
    return make(), [source]


def _resize(draw, shapes, source):
    size = draw(st.sampled_from(shapes))[2:]
    align = draw(st.booleans())
    name, function = draw(
        st.sampled_from(
            [
                ("bilinear to a size", lambda x: F.interpolate(x, size, mode="bilinear", align_corners=align)),
                ("bilinear x2", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align)),
                ("nearest x2", lambda x: F.interpolate(x, scale_factor=2)),
                ("nearest x1/2", lambda x: F.interpolate(x, scale_factor=0.5)),
            ]
        )
    )
    if min(shapes[source][2:]) < 2:
        return None
    return Call(name, function), [source]


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    """A channel shuffle as ShuffleNet writes it."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def _shuffle(draw, shapes, source):
    """Channels and pixels in another order."""
    _, c, h, w = shapes[source]
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    makers = [lambda: nn.ChannelShuffle(groups), lambda: Call(f"shuffled {groups}", lambda x: shuffled(x, groups))]
    makers += [lambda f=f: nn.PixelShuffle(f) for f in (2, 3) if c % f**2 == 0]
    makers += [lambda f=f: nn.PixelUnshuffle(f) for f in (2, 3) if h % f == w % f == 0]
    return draw(st.sampled_from(makers))(), [source]


def _part(draw, shapes, source):
    c = shapes[source][1]
    if c < 2:
        return None
    which = draw(st.integers(0, 1))
    name, function = draw(
        st.sampled_from(
            [
                ("chunk", lambda x: x.chunk(2, 1)[min(which, len(x.chunk(2, 1)) - 1)]),
                ("split", lambda x: x.split([1, c - 1], 1)[which]),
                ("slice", lambda x: x[:, which:]),
            ]
        )
    )
    return Call(name, function), [source]


def _torch(draw, shapes, source):
    name = draw(st.sampled_from(["sin", "cos"]))
    return Call(name, getattr(torch, name)), [source]


_MAKERS = (
    *(_conv, _conv, _conv, _norm, _norm, _activation, _activation, _add, _add, _join, _join),
    *(_conv_transpose, _arithmetic, _pool, _resize, _part, _torch, _frame_norm, _global, _pad, _excitation, _shuffle),
    _channel_norm,
)
