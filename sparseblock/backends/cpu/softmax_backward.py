"""Gradient of softmax, cpu backend: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu.gradients import differentiate, pack, unpack


def softmax_backward(call, grad, packed, needs):
    place = (call.index, call.count, call.block)
    (x,) = differentiate(lambda x: torch.softmax(x, 1), [pack(call.x, *place)], packed)
    return {"x": unpack(x, *place, torch.zeros_like(grad))}
