"""Gradient of gather, cpu backend: each block adds to the pixels that it and its halo were read from."""

from __future__ import annotations

import torch


def gather_backward(call, grad, packed, needs):
    count, halo = int(call.count), call.halo
    grads = {}
    if "out" in needs:
        grads["out"] = grad.clone()
        grads["out"][:count] = 0
    if "x" in needs:
        *_, h, w = call.shapes["x"]
        height, width = call.block
        grads["x"] = total = torch.zeros(call.shapes["x"]).contiguous(memory_format=torch.channels_last)
        for block, (image, row, col) in zip(grad, call.index[:count].tolist(), strict=False):
            top, left = row * height - halo, col * width - halo
            y0, x0, y1, x1 = max(top, 0), max(left, 0), top + block.shape[1], left + block.shape[2]
            part = block[:, y0 - top : h - top, x0 - left : w - left]
            total[image, :, y0:y1, x0:x1] += part
    return grads
