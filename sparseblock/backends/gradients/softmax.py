"""Gradient of softmax: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import differentiate, pack, unpack


def softmax_backward(call, grad, packed, needs):
    (x,) = differentiate(lambda x: torch.softmax(x, 1), [pack(call, call.x)], packed)
    return {"x": unpack(call, x, torch.zeros_like(grad))}
