"""Gradient of normalize, cpu backend: on packed blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.cpu.gradients import differentiate, pack, unpack


def normalize_backward(call, grad, packed, needs):
    place = (call.index, call.count, call.block)
    (x,) = differentiate(lambda x: F.normalize(x, dim=1, eps=call.eps), [pack(call.x, *place)], packed)
    return {"x": unpack(x, *place, torch.zeros_like(grad))}
