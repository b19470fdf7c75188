"""Gradient of affine, cpu backend: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu.gradients import pack, unpack


def affine_backward(call, grad, packed, needs):
    place = (call.index, call.count, call.block)
    grads = {"shift": packed.sum((0, 2, 3))}
    if "x" in needs:
        grads["x"] = unpack(packed * call.scale[:, None, None], *place, torch.zeros_like(grad))
    if "scale" in needs:
        grads["scale"] = (packed * pack(call.x, *place)).sum((0, 2, 3))
    return grads
