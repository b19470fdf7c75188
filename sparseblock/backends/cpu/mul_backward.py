"""Gradient of mul, cpu backend: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.cpu.gradients import pack_second, unpack


def mul_backward(call, grad, packed, needs):
    place = (call.index, call.count, call.block)
    return {
        name: unpack(packed * pack_second(other, *place), *place, torch.zeros_like(grad))
        for name, other in (("x", call.y), ("y", call.x))
        if name in needs
    }
