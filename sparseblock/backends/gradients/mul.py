"""Gradient of mul: on packed blocks."""

from __future__ import annotations

import torch

from sparseblock.backends.gradients import pack_second, unpack


def mul_backward(call, grad, packed, needs):
    return {
        name: unpack(call, packed * pack_second(call, other), torch.zeros_like(grad))
        for name, other in (("x", call.y), ("y", call.x))
        if name in needs
    }
