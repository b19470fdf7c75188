"""Gradient of gather: each block adds to the pixels that it and its halo were read from."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.gradients import listed


def gather_backward(call, grad, packed, needs):
    active = listed(call)
    grads = {}
    if "out" in needs:
        grads["out"] = torch.where(active[:, None, None, None], 0, grad)
    if "x" in needs:
        n, _, *size = call.shapes["x"]
        rows, cols = (-(-side // length) for side, length in zip(size, call.block, strict=True))
        image, y, x = call.index.long().unbind(1)
        blocks = n * rows * cols
        # All blocks of the grid, and one that takes what lies past the count.
        every = grad.new_zeros(blocks + 1, *grad.shape[1:])
        every[torch.where(active, (image * rows + y) * cols + x, blocks)] = grad
        whole = [count * length for count, length in zip((rows, cols), call.block, strict=True)]
        columns = every[:-1].view(n, rows * cols, -1).transpose(1, 2)
        x = F.fold(columns, whole, grad.shape[2:], padding=call.halo, stride=tuple(call.block))
        grads["x"] = x[:, :, : size[0], : size[1]]
    return grads
