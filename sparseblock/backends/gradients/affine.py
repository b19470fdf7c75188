"""Gradient of affine: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import pack, unpack


def affine_backward(call, grad, packed, needs):
    grads = {}
    if "shift" in needs:
        grads["shift"] = packed.sum((0, 2, 3))
    if "x" in needs:
        grads["x"] = unpack(call, packed * call.scale[:, None, None], torch.zeros_like(grad))
    if "scale" in needs:
        grads["scale"] = (packed * pack(call, call.x)).sum((0, 2, 3))
    return grads
