"""Launching a Triton kernel on PyTorch's current stream.

Nothing here waits for the device. A kernel is compiled by its first launch for a geometry, which therefore must not be
the one that is captured into a CUDA graph: run once before.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton

_INTERPRETED_PROGRAMS = 3  # few, so that programs take work more than once
_TILE = 2048  # elements that a program takes at a time
_WIDEST = 128  # channels of them


def launch(kernel, work: int, device: torch.device, *arguments, share: int = 8, **constants) -> None:
    """Runs `kernel`, whose programs take work in steps of their number.

    Args:
        work: how many programs could have something to do at most; as many run as fit onto the device at once.
        device: of the tensors among `arguments`.
        share: programs of a multiprocessor.
        constants: what the kernel is compiled for, and Triton's own options.
    """
    if not work:
        return
    if device.type == "cpu":
        kernel[(min(work, _INTERPRETED_PROGRAMS),)](*arguments, **constants)
        return
    with torch.accelerator.device_index(device.index):
        kernel[(min(work, share * multiprocessors(device.index)),)](*arguments, **constants)


@functools.cache
def multiprocessors(index: int) -> int:
    """Of the accelerator of that number."""
    return triton.runtime.driver.active.utils.get_device_properties(index)["multiprocessor_count"]


def elementwise(
    kernel,
    arguments: Sequence[object],
    index: torch.Tensor,
    count: torch.Tensor,
    block: Sequence[int],
    out: torch.Tensor,
    **constants: object,
) -> None:
    """Runs a kernel that goes through the active blocks by `pieces_of` and `pixels_of` of maps.py.

    Its parameters are `arguments`, then index, count, block height and width, `plane(out)`, height, width and channels
    of out, and the constants PIXELS and CHANNELS besides those given here.
    """
    height, width = (min(side, size) for side, size in zip(block, out.shape[2:], strict=True))
    sizes = out.shape[2], out.shape[3], out.shape[1]
    work, tile = tiles(len(index) * height * width, out.shape[1])
    launch(kernel, work, out.device, *arguments, index, count, *block, *plane(out), *sizes, **tile, **constants)


def tiles(pixels: int, channels: int) -> tuple[int, dict[str, int]]:
    """Into how many tiles, and of how many PIXELS and CHANNELS, so many pixels are cut."""
    across = min(triton.next_power_of_2(channels), _WIDEST)
    down = _TILE // across
    return -(-pixels // down) * -(-channels // across), {"PIXELS": down, "CHANNELS": across}


def plane(tensor: torch.Tensor) -> tuple[torch.Tensor, int, int, int]:
    """A map [n, c, h, w] as kernels take it: where it begins, and its strides over images, rows and columns."""
    stride_n, _, stride_y, stride_x = tensor.stride()
    return tensor, stride_n, stride_y, stride_x
