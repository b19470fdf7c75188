"""Gradient of normalize: on packed blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.gradients import differentiate, pack, unpack


def normalize_backward(call, grad, packed, needs):
    grads = differentiate(lambda x: F.normalize(x, dim=1, eps=call.eps), {"x": pack(call, call.x)}, packed, needs)
    return {"x": unpack(call, grads["x"], torch.zeros_like(grad))}
