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
from sparseblock.backends.cuda.launch import architecture, kernel_of, launch, multiprocessors, vector_of
from sparseblock.backends.cuda.tensor_map import tensor_map
from sparseblock.backends.kept import kept

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
        kernel: without the type that it stores.
        rows, cols: of a tile.
        cost: of a block, cycles.
    """

    width: int
    height: int
    shared: bool
    box: tuple[int, int]
    kernel: str
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

    @property
    def stages(self) -> tuple[int, int]:
        """Of the rings of boxes and of weights; fewer than two, if they do not fit."""
        room = kernels()[f"{self.kernel}_f16"].shared - _STAGING - _SIGNALS
        a, b = self.units * self.unit_bytes, self.cols * _LINE
        of_a = 2 if self.shared else room // (a + b)
        return min(of_a, _MOST_STAGES), min((room - of_a * a) // b, _MOST_STAGES)


def can(conv: native.Conv2d, x: torch.Tensor, device: torch.device) -> bool:
    """Whether the kernel is for this convolution of maps that lie as `x` on this device, whatever its blocks are."""
    return (
        architecture(device) == ARCHITECTURE
        and x.dtype != torch.float32
        and conv.groups == 1
        and not conv.transposed
        and conv.pad_mode == native.PAD_MODES["zeros"]
        and max(conv.stride_h, conv.stride_w) <= _MOST_STEP
        and (vector_of(native.plane_of(x)) > 1 or _pitch(conv, x) is not None)
    )


def run(conv: native.Conv2d, epilogue, x, weight, index, count, block, out, residual) -> None:
    """Launches it; `residual` may be None."""
    blocks, of_out = native.blocks_of(index, count, block), native.plane_of(out)
    of_residual = of_out if residual is None else native.plane_of(residual.expand(out.shape))
    if vector_of(native.plane_of(x)) > 1:
        packed = kept(weight, ("cuda wgmma", x.dtype), lambda: _packed(weight, x.dtype))
    else:
        pitch = _pitch(conv, x)
        packed = kept(weight, ("cuda windows", pitch, x.dtype), lambda: _packed(_windows(weight, pitch), x.dtype))
        conv, x = _as_windows(conv, x, blocks, of_out, index.shape[0], block, out, pitch)
    sides = tuple(min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    window = (conv.kernel_h, conv.kernel_w), (conv.stride_h, conv.stride_w), (conv.dilation_h, conv.dilation_w)
    cut = _cut(sides, len(index), conv.in_channels, out.shape[1], *window, multiprocessors(x.device))
    name = f"{cut.kernel}_{SUFFIXES[x.dtype]}"
    across, down = -(-sides[1] // cut.width), -(-sides[0] // cut.height)
    units = Units(
        cut.width.bit_length() - 1, cut.height.bit_length() - 1, across, down, cut.shared, cut.box[0],
        cut.box[0] * cut.box[1] * _LINE, cut.unit_bytes, *cut.stages,
    )  # fmt: skip
    steps = (1, 1) if cut.shared else (conv.stride_w, conv.stride_h)
    n, c, h, w = x.shape
    stride_n, _, stride_y, stride_x = x.stride()
    taps, channels, pitch = packed.shape
    depth = _LINE // x.element_size()
    maps = (
        tensor_map(x, (c, w, h, n), (stride_x, stride_y, stride_n), (depth, *cut.box, 1), (1, *steps, 1)),
        tensor_map(packed, (c, channels, taps, 1), (pitch, channels * pitch, 0), (depth, cut.cols, 1, 1), (1, 1, 1, 1)),
    )
    arguments = [conv, epilogue, units, *maps, of_residual, c_int32(residual is not None), blocks, of_out]
    tiles = -(-len(index) * across * down // cut.units) * -(-channels // cut.cols)
    vector = c_int32(vector_of(of_residual, of_out) > 1)
    launch(name, work=tiles, arguments=[*arguments, vector], device=x.device)


def _packed(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[taps, k, c], as maps are stored; c with zeros up to a multiple of 16 bytes."""
    by_tap = weight.detach().permute(2, 3, 0, 1).flatten(0, 1).to(dtype)
    return F.pad(by_tap, (0, -weight.shape[1] % (16 // dtype.itemsize))).contiguous()


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
    sides: tuple[int, int],
    blocks: int,
    in_channels: int,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Cut:
    """The cheapest cut of blocks of `sides` output pixels; its tiles are large if there are enough for all `groups`.

    It depends on how many blocks there could be, not on how many there are. A value's bits depend on no cut.
    """
    cols, depth = (64, 32) if in_channels <= 32 else (64 if channels <= 64 else 128, 64)
    large, small = (
        min(
            (cut for cut in _cuts(sides, rows, cols, depth, kernel, stride, dilation) if min(cut.stages) >= 2),
            key=lambda cut: cut.cost,
        )
        for rows in (256, 128)
    )
    units = -(-sides[0] // large.height) * -(-sides[1] // large.width)
    tiles = -(-blocks * units // large.units) * -(-channels // cols)
    return large if 10 * tiles >= 9 * groups else small


def _cuts(
    sides: Sequence[int],
    rows: int,
    cols: int,
    depth: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[Cut]:
    taps = kernel[0] * kernel[1]
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    name = f"conv2d_wgmma_{rows}x{cols}x{depth}"
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
        cost += 1e-3 * units + 1e-6 * abs(width - height)
        cuts.append(Cut(width, height, shared, box, name, rows, cols, cost))
    return cuts
