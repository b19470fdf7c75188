"""Gradient of softmax: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import differentiate, pack, unpack


def softmax_backward(call, grad, packed, needs):
    grads = differentiate(lambda x: torch.softmax(x, 1), {"x": pack(call, call.x)}, packed, needs)
    return {"x": unpack(call, grads["x"], torch.zeros_like(grad))}
