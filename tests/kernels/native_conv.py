"""The native convolution on planes of a test's own, with no op in between; the instruction sets it runs on."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock import BlockSet
from sparseblock.backends.cpu import native
from sparseblock.backends.cpu.packed_weight import pack


def isas() -> list[str]:
    """The names that the native library accepts here, best first."""
    lib = native.lib()
    chosen = lib.sb_isa()
    accepted = [name for name in ("avx512", "avx2", "generic") if lib.sb_set_isa(name.encode()) == 0]
    lib.sb_set_isa(chosen)
    return accepted


def plane(n: int, c: int, h: int, w: int, border: int, fill: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A channels-last map inside `border` pixels of `fill`, and the memory [n, h + 2b, w + 2b, c] that it lies in."""
    memory = torch.full((n, h + 2 * border, w + 2 * border, c), fill)
    return memory.permute(0, 3, 1, 2)[:, :, border : border + h, border : border + w], memory


def with_border(x: torch.Tensor, border: int) -> torch.Tensor:
    """A copy of `x` in a plane with `border` zero pixels around each image."""
    copy, _ = plane(*x.shape, border)
    return copy.copy_(x)


class NativeConv:
    """A conv2d of `weight` [k, c/groups, r, s], packed on the instruction set of the moment."""

    def __init__(self, weight: torch.Tensor, stride=1, padding=0, dilation=1, groups=1, algorithm="direct"):
        k, c, r, s = weight.shape
        window = (v for v in (stride, padding, dilation) for _ in "hw")
        self.weight = weight
        self.conv = native.Conv2d(c * groups, k, groups, r, s, *window, 0, algorithm=native.ALGORITHMS[algorithm])
        self.packed = pack(self.conv, weight.contiguous())
        self.conv.packed_weight = self.packed.data_ptr()

    def __call__(
        self, x, out, blocks: BlockSet | None = None, border=0, threads=1, residual=None, activation="relu", **vectors
    ):
        """Writes the active blocks of `out`; every pixel where `blocks` is None. `vectors`: of the epilogue."""
        listed = None if blocks is None else byref(native.blocks_of(blocks.index, blocks.count, blocks.block))
        epilogue = native.epilogue_of(activation=activation, **vectors)
        planes = [
            None if t is None else byref(native.plane_of(t, b)) for t, b in ((x, border), (residual, 0), (out, 0))
        ]
        native.lib().sb_conv2d_run(byref(self.conv), byref(epilogue), planes[0], planes[1], listed, planes[2], threads)
        return out
