"""conv2d of the cuda backend on Hopper: csrc/cuda/conv2d_wgmma.cu, and how its tiles are cut."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Sequence
from ctypes import c_int32
from dataclasses import dataclass

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import SUFFIXES, kernels
from sparseblock.backends.cuda.launch import architecture, launch, multiprocessors, vector_of
from sparseblock.backends.cuda.tensor_map import tensor_map

ARCHITECTURE = "sm_90a"
_SQUARE = 64  # rows of one product
_LINE = 128  # bytes of a row in shared memory
_ALIGNED = 1024  # bytes, where units begin
_STAGING, _SIGNALS, _MOST_STAGES = 8 * 16 * 64 * 4, 4 * 12 * 8, 12  # as conv2d_wgmma.cu has them
_MOST_BOX, _MOST_STEP = 256, 8  # pixels along an axis, of a box; from one to the next
# Cycles of a multiprocessor for a row of a tap and 64 channels: to multiply it by 128 columns, and to copy it.
_PRODUCT, _COPY = 4, 5


class Units(ctypes.Structure):
    """sb_units."""

    _fields_ = (
        ("width_log", c_int32),
        ("height_log", c_int32),
        ("across", c_int32),
        ("down", c_int32),
        ("shared", c_int32),
        ("pitch", c_int32),
        ("box_bytes", c_int32),
        ("unit_bytes", c_int32),
        ("stages_a", c_int32),
        ("stages_b", c_int32),
    )


@dataclass(frozen=True)
class Cut:
    """A way to cut the blocks of a convolution into units.

    Attributes:
        width, height: of a unit, output pixels: powers of 2.
        shared: whether one box serves all taps.
        box: its width and height, pixels of x that it has.
        rows, cols: of a tile.
        cost: of a block, cycles.
    """

    width: int
    height: int
    shared: bool
    box: tuple[int, int]
    rows: int
    cols: int
    cost: float

    @property
    def units(self) -> int:
        """Of a tile."""
        return self.rows // (self.width * self.height)

    @property
    def unit_bytes(self) -> int:
        return -(-self.box[0] * self.box[1] * _LINE // _ALIGNED) * _ALIGNED

    def stages(self, room: int) -> tuple[int, int]:
        """Of the rings of boxes and of weights, in `room` bytes; fewer than two, if they do not fit."""
        a, b = self.units * self.unit_bytes, self.cols * _LINE
        of_a = 2 if self.shared else room // (a + b)
        return min(of_a, _MOST_STAGES), min((room - of_a * a) // b, _MOST_STAGES)


def can(conv: native.Conv2d, x: torch.Tensor) -> bool:
    """Whether the kernel is for this convolution on this device, whatever its blocks are."""
    return (
        architecture(x.device) == ARCHITECTURE
        and x.dtype != torch.float32
        and conv.groups == 1
        and not conv.transposed
        and conv.pad_mode == native.PAD_MODES["zeros"]
        and max(conv.stride_h, conv.stride_w) <= _MOST_STEP
        and vector_of(native.plane_of(x)) > 1
    )


def run(conv: native.Conv2d, arguments, x, packed, index, count, block, out, vector_out: bool) -> None:
    """Launches it. `arguments` are conv, epilogue, plane of x, plane of the residual, and whether there is one."""
    sides = tuple(min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    window = (conv.kernel_h, conv.kernel_w), (conv.stride_h, conv.stride_w), (conv.dilation_h, conv.dilation_w)
    cut = _cut(sides, len(index), out.shape[1], *window, multiprocessors(x.device))
    name = f"conv2d_wgmma_{cut.rows}x{cut.cols}_{SUFFIXES[x.dtype]}"
    across, down = -(-sides[1] // cut.width), -(-sides[0] // cut.height)
    box_bytes = cut.box[0] * cut.box[1] * _LINE
    units = Units(
        cut.width.bit_length() - 1, cut.height.bit_length() - 1, across, down, cut.shared, cut.box[0],
        box_bytes, cut.unit_bytes, *cut.stages(_room(name)),
    )  # fmt: skip
    steps = (1, 1) if cut.shared else (conv.stride_w, conv.stride_h)
    n, c, h, w = x.shape
    stride_n, _, stride_y, stride_x = x.stride()
    depth = _LINE // x.element_size()
    maps = (
        tensor_map(x, (c, w, h, n), (stride_x, stride_y, stride_n), (depth, *cut.box, 1), (1, *steps, 1)),
        tensor_map(packed, *_of_weights(conv, out.shape[1]), (depth, cut.cols, 1, 1), (1, 1, 1, 1)),
    )
    of_conv, epilogue, _, of_residual, combined = arguments
    tiles = -(-len(index) * across * down // cut.units) * -(-out.shape[1] // cut.cols)
    rest = [native.blocks_of(index, count, block), native.plane_of(out), c_int32(vector_out)]
    launch(name, work=tiles, arguments=[of_conv, epilogue, units, *maps, of_residual, combined, *rest], device=x.device)


def _of_weights(conv: native.Conv2d, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides of weights [taps, out, in], as axes in, out, taps and one more."""
    taps, tap = conv.kernel_h * conv.kernel_w, channels * conv.in_channels
    return (conv.in_channels, channels, taps, 1), (conv.in_channels, tap, taps * tap)


def _room(name: str) -> int:
    return kernels()[name].shared - _STAGING - _SIGNALS


@functools.cache
def _cut(
    sides: tuple[int, int],
    blocks: int,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Cut:
    """The cheapest cut of blocks of `sides` output pixels; its tiles are large if there are enough for all `groups`.

    It depends on how many blocks there could be, not on how many there are. A value's bits depend on no cut.
    """
    cols = 64 if channels <= 64 else 128
    cuts = {}
    for rows in (256, 128):
        name = f"conv2d_wgmma_{rows}x{cols}_f16"
        fits = [cut for cut in _cuts(sides, rows, cols, kernel, stride, dilation) if min(cut.stages(_room(name))) >= 2]
        cuts[rows] = min(fits, key=lambda cut: cut.cost)
    large = cuts[256]
    units = -(-sides[0] // large.height) * -(-sides[1] // large.width)
    tiles = -(-blocks * units // large.units) * -(-channels // cols)
    return large if 10 * tiles >= 9 * groups else cuts[128]


def _cuts(
    sides: Sequence[int], rows: int, cols: int, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[Cut]:
    taps = kernel[0] * kernel[1]
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    powers = [2**i for i in range(9)]
    cuts = []
    for (width, height), shared in itertools.product(itertools.product(powers, powers), (False, True)):
        area = width * height
        if shared:
            fine = taps > 1 and max(stride) == 1 and min(width, height) >= 8
            box = width + reach[1], height + reach[0]
        else:
            fine, box = True, (width, height)
        spans = (side * step for side, step in zip(box, (1, 1) if shared else stride[::-1], strict=True))
        if not fine or not 8 <= area <= rows or (shared and area < _SQUARE) or max(spans) > _MOST_BOX:
            continue
        units = -(-sides[0] // height) * -(-sides[1] // width)
        copied = box[0] * box[1] * (1 if shared else taps)
        cost = units * max(area * taps * _PRODUCT * cols / 128, copied * _COPY)
        # Of cuts that cost the same, the one of fewest and squarest units.
        cuts.append(Cut(width, height, shared, box, rows, cols, cost + 1e-3 * units + 1e-6 * abs(width - height)))
    return cuts
