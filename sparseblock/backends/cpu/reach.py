"""Which input a convolution's active blocks reach: where the gradient with respect to it is not zero."""

from __future__ import annotations

import torch

from sparseblock.blocks import BlockSet


def conv2d(call, size: tuple[int, ...], out_size: tuple[int, ...]) -> BlockSet:
    """Blocks of x [n, c, h, w] = `size` that the active blocks of out [n, k, oh, ow] read."""
    kernel = call.weight.shape[2:]
    axes = zip(kernel, call.stride, call.padding, call.dilation, strict=True)

    def along(kernel, stride, padding, dilation):
        return lambda first, last: (first * stride - padding, last * stride - padding + (kernel - 1) * dilation)

    block = tuple(side * step for side, step in zip(call.block, call.stride, strict=True))
    return _reached(call, [along(*axis) for axis in axes], block, size, out_size)


def conv_transpose2d(call, size: tuple[int, ...], out_size: tuple[int, ...]) -> BlockSet:
    """The same of a transposed convolution."""
    kernel = call.weight.shape[2:]
    axes = zip(kernel, call.stride, call.padding, call.dilation, strict=True)

    def along(kernel, stride, padding, dilation):
        return lambda first, last: ((first + padding - (kernel - 1) * dilation) // stride, (last + padding) // stride)

    block = tuple(-(-side // step) for side, step in zip(call.block, call.stride, strict=True))
    return _reached(call, [along(*axis) for axis in axes], block, size, out_size)


def _reached(call, reach, block, size, out_size) -> BlockSet:
    """`reach`, of each axis: (first, last) pixel of out to (first, last) of the input."""
    grid = (out_size[0], *(-(-side // length) for side, length in zip(out_size[2:], call.block, strict=True)))
    mask = BlockSet(call.index, call.count, grid, tuple(call.block)).to_mask().float()
    rows, cols = (
        _cells(reach[axis], grid[1 + axis], call.block[axis], out_size[2 + axis], block[axis], size[2 + axis])
        for axis in (0, 1)
    )
    return BlockSet.from_mask(rows.T @ mask @ cols > 0, block)


def _cells(reach, blocks: int, length: int, out_size: int, in_length: int, size: int) -> torch.Tensor:
    """float [blocks of out, blocks of the input] of one axis: 1 where the one reaches into the other."""
    first = torch.arange(blocks) * length
    low, high = reach(first, (first + length).clamp(max=out_size) - 1)
    start = torch.arange(-(-size // in_length)) * in_length
    return ((start <= high[:, None]) & (start + in_length > low[:, None])).float()
