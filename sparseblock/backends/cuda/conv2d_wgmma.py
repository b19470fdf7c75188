"""conv2d of the cuda backend on Hopper: csrc/cuda/conv2d_wgmma.cu, and how its tiles are cut."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Sequence
from ctypes import c_int32
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import SUFFIXES, kernels
from sparseblock.backends.cuda.launch import (
    architecture,
    has_aligned_parameters,
    kernel_of,
    launch,
    vector_of,
)
from sparseblock.backends.cuda.tensor_map import can_map, tensor_map
from sparseblock.backends.kept import kept

ARCHITECTURE = "sm_90a"
_LINE = 128  # bytes of a row in shared memory
_ALIGNED = 1024  # bytes, where units begin
_STAGING, _SIGNALS, _MOST_STAGES = 8 * 16 * 64 * 4, 4 * 12 * 8, 12  # as conv2d_wgmma.cu has them
_MOST_BOX, _MOST_STEP = 256, 8  # pixels along an axis, of a box; from one to the next
_MOST_UNIT, _MOST_UNITS = 128, 32  # pixels of a unit, units of a tile
_WEIGHTS = 64  # columns of a box of weights
# Cycles of a multiprocessor: to multiply a row of a tap and 64 channels by 128 columns; to copy it by a box, and what
# every box takes besides; to copy it by itself.
_PRODUCT, _COPY, _BOX, _GATHER = 4, 4, 64, 5


class Units(ctypes.Structure):
    """sb_units."""

    _fields_ = (
        ("width_log", c_int32),
        ("height_log", c_int32),
        ("across", c_int32),
        ("down", c_int32),
        ("shared", c_int32),
        ("gathered", c_int32),
        ("pitch", c_int32),
        ("box_bytes", c_int32),
        ("unit_bytes", c_int32),
        ("stages", c_int32 * 2 * 3),
    )


@dataclass(frozen=True)
class Cut:
    """A way to cut the blocks of a convolution into units.

    Attributes:
        width, height: of a unit, output pixels: powers of 2.
        shared: whether one box serves all taps.
        gathered: whether rows are copied one by one instead.
        box: its width and height, pixels of x that it has.
        cost: of a block, cycles.
    """

    width: int
    height: int
    shared: bool
    gathered: bool
    box: tuple[int, int]
    cost: float

    @property
    def unit_bytes(self) -> int:
        size = self.box[0] * self.box[1] * _LINE
        return size if self.gathered else -(-size // _ALIGNED) * _ALIGNED

    def stages(self, rows: int, cols: int) -> tuple[int, int]:
        """Of the rings of boxes and of weights for tiles of `rows` x `cols`; fewer than two, if they do not fit."""
        room = kernels()["conv2d_wgmma_128x64_f16"].shared - _STAGING - _SIGNALS  # all have as much
        a, b = rows // (self.width * self.height) * self.unit_bytes, cols * _LINE
        of_a = 2 if self.shared else min(room // (a + b), _MOST_STAGES)
        return of_a, min((room - of_a * a) // b, _MOST_STAGES)


def can(conv: native.Conv2d, x: torch.Tensor, device: torch.device) -> bool:
    """Whether the kernel is for this convolution of maps that lie as `x` on this device, whatever its blocks are."""
    return (
        architecture(device) == ARCHITECTURE
        and x.dtype != torch.float32
        and conv.groups == 1
        and not conv.transposed
        and conv.pad_mode == native.PAD_MODES["zeros"]
        and max(conv.stride_h, conv.stride_w) <= _MOST_STEP
        and (can_map(x) or _pitch(conv, x) is not None)
    )


def run(conv: native.Conv2d, epilogue, x, weight, index, count, block, out, residual) -> None:
    """Launches it; `residual` may be None."""
    blocks, of_out = native.blocks_of(index, count, block), native.plane_of(out)
    of_residual = of_out if residual is None else native.plane_of(residual.expand(out.shape))
    if can_map(x):
        packed = kept(weight, ("cuda wgmma", x.dtype), lambda: _packed(weight, x.dtype))
    else:
        pitch = _pitch(conv, x)
        packed = kept(weight, ("cuda windows", pitch, x.dtype), lambda: _packed(_windows(weight, pitch), x.dtype))
        conv, x = _as_windows(conv, x, blocks, of_out, index.shape[0], block, out, pitch)
    sides = tuple(min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    window = (conv.kernel_h, conv.kernel_w), (conv.stride_h, conv.stride_w), (conv.dilation_h, conv.dilation_w)
    of_x = native.plane_of(x)
    cut = _cut(sides, *window, vector_of(of_x) > 1)
    name = _kernel(conv.in_channels, out.shape[1], x.dtype)
    columns = int(kernels()[name].macros["SB_COLS"])
    tiles = ((256, columns), (128, columns), (128, 64))  # as conv2d_wgmma.cu has them
    across, down = -(-sides[1] // cut.width), -(-sides[0] // cut.height)
    units = Units(
        cut.width.bit_length() - 1, cut.height.bit_length() - 1, across, down, cut.shared, cut.gathered, cut.box[0],
        cut.box[0] * cut.box[1] * _LINE, cut.unit_bytes,
        tuple(cut.stages(*tile) for tile in tiles),
    )  # fmt: skip
    steps = (1, 1) if cut.shared else (conv.stride_w, conv.stride_h)
    n, c, h, w = x.shape
    stride_n, _, stride_y, stride_x = x.stride()
    taps, channels, pitch = packed.shape
    depth = _LINE // x.element_size()
    maps = (
        tensor_map(x, (c, w, h, n), (stride_x, stride_y, stride_n), (depth, *cut.box, 1), (1, *steps, 1)),
        tensor_map(packed, (c, channels, taps, 1), (pitch, channels * pitch, 0), (depth, _WEIGHTS, 1, 1), (1, 1, 1, 1)),
    )
    vectors = c_int32(has_aligned_parameters(epilogue) and vector_of(of_residual, of_out) > 1)
    arguments = [
        conv,
        epilogue,
        units,
        of_x,
        *maps,
        of_residual,
        c_int32(residual is not None),
        blocks,
        of_out,
        vectors,
    ]
    rows, cols = tiles[-1]
    work = -(-len(index) * across * down * cut.width * cut.height // rows) * -(-channels // cols)
    launch(name, work=work, arguments=arguments, device=x.device)


def _kernel(in_channels: int, channels: int, dtype: torch.dtype) -> str:
    """Its tiles have 64 columns where there are no more; its products half as many steps where few channels end."""
    few = in_channels <= 32
    return f"conv2d_wgmma_{64 if few or channels <= 64 else 128}x{32 if few else 64}_{SUFFIXES[dtype]}"


def _packed(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[taps, k, c], as maps are stored; c with zeros up to a multiple of 16 bytes. In memory of its own, as the other
    kernels' is.
    """
    by_tap = weight.detach().permute(2, 3, 0, 1).flatten(0, 1).to(dtype)
    return F.pad(by_tap, (0, -weight.shape[1] % (16 // dtype.itemsize))).clone(memory_format=torch.contiguous_format)


def _pitch(conv: native.Conv2d, x: torch.Tensor) -> int | None:
    """How many channels a pixel is given, so that windows of few begin at multiples of 16 bytes; None: has too many."""
    for pitch in (4, 8):
        fits = conv.in_channels <= pitch and conv.kernel_w * pitch * x.element_size() <= _LINE
        if fits and conv.dilation_w == 1 and conv.stride_w * pitch * x.element_size() % 16 == 0:
            return pitch
    return None


def _windows(weight: torch.Tensor, pitch: int) -> torch.Tensor:
    """[k, s * pitch, r, 1]: the taps of a line as channels."""
    k, c, r, s = weight.shape
    return F.pad(weight.detach().permute(0, 2, 3, 1), (0, pitch - c)).reshape(k, r, s * pitch, 1).transpose(1, 2)


def _as_windows(
    conv: native.Conv2d, x: torch.Tensor, blocks, of_out, capacity: int, block, out: torch.Tensor, pitch: int
) -> tuple[native.Conv2d, torch.Tensor]:
    """The convolution of one tap a line, and the map that it reads: every window of a line as a pixel."""
    n, _, h, _ = x.shape
    windows = out.shape[3]
    line = (windows - 1) * conv.stride_w + conv.kernel_w
    line += line % 2  # lines begin at multiples of 16 bytes
    packed = torch.empty(n, h, line, pitch, dtype=x.dtype, device=x.device)
    kernel = kernel_of(f"conv2d_windows_{pitch}", x)
    arguments = [conv, native.plane_of(x), blocks, of_out, native.plane_of(packed.permute(0, 3, 1, 2))]
    height, width = (min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    area = ((height - 1) * conv.stride_h + conv.dilation_h * (conv.kernel_h - 1) + 1) * (width * conv.stride_w + pitch)
    launch(kernel, work=capacity * -(-area // kernels()[kernel].threads), arguments=arguments, device=x.device)
    of_lines = native.Conv2d.from_buffer_copy(conv)
    of_lines.in_channels, of_lines.kernel_w, of_lines.stride_w, of_lines.pad_w = conv.kernel_w * pitch, 1, 1, 0
    strides = (h * line * pitch, 1, line * pitch, conv.stride_w * pitch)
    return of_lines, packed.as_strided((n, conv.kernel_w * pitch, h, windows), strides)


@functools.cache
def _cut(
    sides: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], vectors: bool
) -> Cut:
    """The cheapest cut of blocks of `sides` output pixels. A value's bits depend on no cut."""
    return min(_cuts(sides, kernel, stride, dilation, vectors), key=lambda cut: cut.cost)


def _cuts(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], vectors: bool
) -> list[Cut]:
    """All of them; `vectors`: whether 16 bytes of channels can be copied by themselves."""
    taps = kernel[0] * kernel[1]
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    powers = [2**i for i in range(8)]
    cuts = []
    for width, height in itertools.product(powers, powers):
        area, units = width * height, -(-sides[0] // height) * -(-sides[1] // width)
        # A box is described to the driver for gathered units too.
        reaches = max(width * stride[1], height * stride[0])
        if not _MOST_UNIT // _MOST_UNITS <= area <= _MOST_UNIT or reaches > _MOST_BOX:
            continue
        apart, together = (width, height), (width + reach[1], height + reach[0])
        ways = []  # shared, gathered, box, cycles to copy what all taps read
        if area >= 8:  # matrices of eight rows begin in boxes
            ways.append((False, False, apart, taps * (_BOX + area * _COPY)))
        if taps > 1 and max(stride) == 1 and min(width, height) >= 8 and max(together) <= _MOST_BOX:
            ways.append((True, False, together, _BOX + together[0] * together[1] * _COPY))
        if vectors and taps <= 32:
            ways.append((False, True, apart, area * taps * _GATHER))
        for shared, gathered, box, copied in ways:
            cost = units * max(area * taps * _PRODUCT, copied)
            # Of cuts that cost the same, the one of fewest and squarest units.
            cost += 1e-3 * units + 1e-6 * abs(width - height)
            cuts.append(Cut(width, height, shared, gathered, box, cost))
    return [cut for cut in cuts if min(cut.stages(256, 128)) >= 2]
